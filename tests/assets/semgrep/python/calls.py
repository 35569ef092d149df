# Lines that the python pack must report (ruleid) and must not report (ok).
import hashlib
import marshal
import os
import pickle
import random
import secrets
import shelve
import ssl
import subprocess
import tarfile
import tempfile
import urllib.request
import xml.sax.handler

import jinja2
import jwt
import lxml.etree
import requests
import yaml


def evaluates(text):
    # ruleid: python-eval-of-variable
    eval(text)
    # ruleid: python-eval-of-variable
    exec(text, {})
    # ok: python-eval-of-variable
    eval("1 + 1")


def shells(name):
    # ruleid: python-shell-command-from-variable
    subprocess.run(f"ls {name}", shell=True)
    # ruleid: python-shell-command-from-variable
    os.system("ls " + name)
    # ok: python-shell-command-from-variable
    subprocess.run("ls -l", shell=True)
    # ok: python-shell-command-from-variable
    subprocess.run(["ls", name])


def loads(data, stream):
    # ruleid: python-deserialises-objects
    pickle.loads(data)
    # ruleid: python-deserialises-objects
    marshal.load(stream)
    # ruleid: python-deserialises-objects
    shelve.open("cache")
    # ok: python-deserialises-objects
    pickle.dumps(data)
    # ruleid: python-yaml-unsafe-load
    yaml.load(stream)
    # ruleid: python-yaml-unsafe-load
    yaml.load(stream, Loader=yaml.FullLoader)
    # ok: python-yaml-unsafe-load
    yaml.load(stream, Loader=yaml.SafeLoader)
    # ok: python-yaml-unsafe-load
    yaml.safe_load(stream)


def network(url, session):
    # ruleid: python-tls-verification-off
    requests.get(url, verify=False, timeout=3)
    # ruleid: python-tls-verification-off
    session.verify = False
    # ok: python-tls-verification-off
    requests.get(url, verify="ca.pem", timeout=3)
    # ruleid: python-tls-verification-off
    context = ssl._create_unverified_context()
    # ruleid: python-tls-verification-off
    context.verify_mode = ssl.CERT_NONE
    # ruleid: python-request-without-timeout
    requests.post(url)
    # ruleid: python-request-without-timeout
    urllib.request.urlopen(url)
    # ok: python-request-without-timeout
    urllib.request.urlopen(url, timeout=3)


def crypto(data, token):
    # ruleid: python-weak-hash
    hashlib.md5(data)
    # ruleid: python-weak-hash
    hashlib.new("sha1", data)
    # ok: python-weak-hash
    hashlib.sha1(data, usedforsecurity=False)
    # ok: python-weak-hash
    hashlib.sha256(data)
    # ruleid: python-predictable-secret
    session_token = random.getrandbits(128)
    # ok: python-predictable-secret
    session_token = secrets.token_hex(16)
    # ok: python-predictable-secret
    colour = random.choice("rgb")
    # ruleid: python-jwt-not-verified
    jwt.decode(token, options={"verify_signature": False})
    # ruleid: python-jwt-not-verified
    jwt.decode(token, algorithms=["none"])
    # ok: python-jwt-not-verified
    jwt.decode(token, data, algorithms=["ES256"])


def database(cursor, name):
    # ruleid: python-sql-from-strings
    cursor.execute(f"select * from users where name = '{name}'")
    # ruleid: python-sql-from-strings
    cursor.execute("select * from users where name = '%s'" % name)
    # ok: python-sql-from-strings
    cursor.execute("select * from users where name = ?", (name,))


def archives(path):
    with tarfile.open(path) as archive:
        # ruleid: python-archive-extracts-anywhere
        archive.extractall("out")
    with tarfile.open(path) as archive:
        # ok: python-archive-extracts-anywhere
        archive.extractall("out", filter="data")
    # ruleid: python-temporary-name-race
    tempfile.mktemp()
    # ok: python-temporary-name-race
    tempfile.mkstemp()


class Settings:
    # ruleid: python-hardcoded-credential
    db_password = "Tr0ub4dor&3"
    # ok: python-hardcoded-credential
    api_key = os.environ["API_KEY"]
    # ok: python-hardcoded-credential
    password = "example-password"


def applications(app, parser, client):
    # ruleid: python-hardcoded-credential
    client.login(password="correct-horse")
    # ruleid: python-debugger-enabled
    app.run(host="127.0.0.1", debug=True)
    # ok: python-debugger-enabled
    app.run(host="127.0.0.1")
    # ruleid: python-xml-entities-resolved
    lxml.etree.XMLParser(resolve_entities=True)
    # ruleid: python-xml-entities-resolved
    parser.setFeature(xml.sax.handler.feature_external_ges, True)
    # ok: python-xml-entities-resolved
    lxml.etree.XMLParser(resolve_entities=False, no_network=True)
    # ruleid: python-template-without-escaping
    jinja2.Environment(loader=None)
    # ok: python-template-without-escaping
    jinja2.Environment(autoescape=jinja2.select_autoescape())
