// Judges Sigstore bundles with a bare public key, by Sigstore's own JavaScript.
//
//   node judge.cjs PUBLIC_KEY.pem < LINES
//
// One bundle a line, as a JSON string; one verdict a line: {"payload": base64} or {"why": text}.
"use strict";

const { createPublicKey } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline");
const { bundleFromJSON } = require("@sigstore/bundle");
const { Verifier, toSignedEntity } = require("@sigstore/verify");

const publicKey = createPublicKey(readFileSync(process.argv[2]));
const trusted = {
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
  publicKey: () => ({ publicKey, validFor: () => true }),
};
const verifier = new Verifier(trusted, { tlogThreshold: 0, ctlogThreshold: 0, tsaThreshold: 0 });

function judge(text) {
  try {
    const bundle = bundleFromJSON(JSON.parse(text));
    if (bundle.content.$case !== "dsseEnvelope") {
      return { why: "no envelope" };
    }
    verifier.verify(toSignedEntity(bundle));
    return { payload: bundle.content.dsseEnvelope.payload.toString("base64") };
  } catch (error) {
    return { why: String(error) };
  }
}

createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  console.log(JSON.stringify(judge(JSON.parse(line))));
});
