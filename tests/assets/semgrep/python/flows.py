# Data flow from a request to a file and to another server.
import flask
import requests
from werkzeug.utils import secure_filename

app = flask.Flask(__name__)


@app.get("/file")
def file():
    name = flask.request.args["name"]
    # ruleid: python-request-data-in-path
    with open("files/" + name) as stream:
        return stream.read()


@app.get("/safe")
def safe():
    name = secure_filename(flask.request.args["name"])
    # ok: python-request-data-in-path
    with open("files/" + name) as stream:
        return stream.read()


@app.get("/proxy")
def proxy():
    url = flask.request.args["url"]
    # ruleid: python-request-data-in-url
    return requests.get(url, timeout=3).text


@app.get("/status")
def status():
    # ok: python-request-data-in-url
    return requests.get("https://status.internal/health", timeout=3).text
