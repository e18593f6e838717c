// Puts every vector with a value to ajv and prints, as JSON, whether its contract's schema takes it. Those in
// CBOR and Protobuf are read first, and a valid one must say what its file says it means.
// Usage: node vectors.mjs SCHEMAS_FOLDER

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import Ajv2020 from "ajv/dist/2020.js";
import { BinaryReader } from "./binary.mjs";

const folder = process.argv[2];
const read = (...path) => JSON.parse(readFileSync(join(folder, ...path), "utf8"));
const jsonIn = (name) => readdirSync(join(folder, name)).filter((file) => file.endsWith(".json")).sort();

const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false });
ajv.addVocabulary(["x-check", "x-registry", "x-cbor-key", "x-cbor-value"]);
ajv.addSchema(read("envelope.schema.json"));
const contracts = Object.fromEntries(jsonIn("contracts").map((file) => [file.split(".")[0], read("contracts", file)]));
for (const schema of Object.values(contracts)) ajv.addSchema(schema);
const binary = new BinaryReader(folder, contracts);
const hostile = read("vectors", "hostile.json").vectors;

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** JSON Merge Patch, RFC 7396. */
function merge(target, patch) {
  if (!isObject(patch)) return patch;
  const merged = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
    else merged[name] = merge(merged[name], value);
  }
  return merged;
}

/** The bytes of a vector: its own, or those of a valid one after its edits. */
function bytesOf(file, { hex, of, edits }) {
  if (hex) return Buffer.from(hex, "hex");
  const bytes = Buffer.from(file.valid.find(({ name }) => name === of).hex, "hex");
  let [end, parts] = [bytes.length, []];
  for (const [at, cut, put] of [...edits[file.contract]].reverse()) {
    parts = [Buffer.from(put, "hex"), bytes.subarray(at + cut, end), ...parts];
    end = at;
  }
  return Buffer.concat([bytes.subarray(0, end), ...parts]);
}

/** What a vector in CBOR or Protobuf says; null where it is not strict or says something else. */
function fromBytes(file, vector) {
  let value;
  try {
    value = binary.read(bytesOf(file, vector));
  } catch {
    return null;
  }
  return "stage" in vector || vector.edits || isDeepStrictEqual(value, merge(file.message, vector.patch ?? {})) ? value : null;
}

/** The message of a vector; undefined where it has none. */
function message(file, vector) {
  if (vector.hex || vector.edits) return fromBytes(file, vector);
  if (vector.stage === "decode" || vector.text === "") return undefined;
  return "text" in vector ? JSON.parse(vector.text) : merge(file.message, vector.patch ?? {});
}

const said = {};
for (const name of jsonIn("vectors")) {
  if (name.endsWith(".schema.json") || name === "hostile.json") continue;
  const file = read("vectors", name);
  const validate = ajv.getSchema(`nervus:contracts/${file.contract}`);
  const spoiled = hostile.filter(({ edits }) => file.contract in edits);
  for (const vector of [...file.valid, ...file.invalid, ...spoiled]) {
    const value = message(file, vector);
    if (value !== undefined) said[`${file.contract}: ${vector.name}`] = validate(value) ? "taken" : "refused";
  }
}
console.log(JSON.stringify(said));
