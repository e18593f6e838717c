// CBOR and Protobuf as a stranger reads them: from schemas/ and with the usual packages.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { decode } from "cborg";
import protobuf from "protobufjs";

const MARK = Buffer.from("d9d9f7", "hex");
const STRICT = {
  allowIndefinite: false, allowUndefined: false, allowInfinity: false, allowNaN: false, allowBigInt: false,
  useMaps: true, rejectDuplicateMapKeys: true,
};
const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const isNumber = (value) => typeof value === "number";

/** Reads messages by the schemas in a folder; `contracts` are the schemas by name. */
export class BinaryReader {
  constructor(folder, contracts) {
    this.envelope = JSON.parse(readFileSync(join(folder, "envelope.schema.json"), "utf8"));
    this.contracts = contracts;
    this.byNumber = new Map(Object.entries(contracts).map(([name, schema]) => [schema["x-cbor-value"], name]));
    this.proto = protobuf.parse(readFileSync(join(folder, "nervus.proto"), "utf8"), { keepCase: true }).root;
  }

  /** The message in some bytes, told by the first; throws where they are not strict. */
  read(bytes) {
    return bytes[0] === MARK[0] ? this.fromCbor(bytes) : this.fromProtobuf(bytes);
  }

  fromCbor(bytes) {
    if (!bytes.subarray(0, 3).equals(MARK)) throw new Error("no tag 55799");
    const raw = decode(bytes.subarray(3), STRICT);
    const names = ["meta", "payload", "errors"];
    const keys = new Map(names.map((name) => [this.keyOf(name), name]));
    const message = {};
    for (const [key, value] of raw) {
      const name = keys.get(key) ?? `#${key}`;
      if (name === "payload" && !message.meta) throw new Error("a payload before its metadata");
      const schema = { meta: this.envelope.$defs.meta, errors: this.envelope.$defs.errors }[name];
      const contract = this.contracts[message.meta?.contract];
      if (name === "payload" && !contract) return message;
      message[name] = this.restore(value, schema ?? contract?.properties.payload ?? {}, schema ? this.envelope : contract);
      if (name === "meta") for (const each of ["contract", "message_type"]) this.name(message.meta, each);
    }
    return message;
  }

  keyOf(name) {
    return Object.values(this.contracts).find((schema) => schema.properties[name]).properties[name]["x-cbor-key"];
  }

  /** The text of a contract's number; a text that has a number is not taken. */
  name(meta, field) {
    if (this.contracts[meta[field]]) throw new Error(`${meta[field]} has a number`);
    meta[field] = this.byNumber.get(meta[field]) ?? meta[field];
  }

  resolve(schema, root) {
    if (!schema.$ref) return [schema, root];
    const [home, name] = schema.$ref.split("#/$defs/");
    return home ? [this.envelope.$defs[name], this.envelope] : [root.$defs[name], root];
  }

  /** Properties of an object, of all its alternatives where it has some; undefined for none. */
  properties(schema, root) {
    const options = (schema.anyOf ?? [schema]).map((option) => this.resolve(option, root)[0].properties);
    return options.some(Boolean) ? Object.assign({}, ...options) : undefined;
  }

  restore(value, reference, home) {
    const [schema, root] = this.resolve(reference, home);
    if (value === null) throw new Error("null");
    if (typeof value === "string" && value.includes("\ufffd")) throw new Error("no UTF-8");
    if (schema["x-check"] === "base64" && typeof value === "string") throw new Error("a text where bytes belong");
    if (value instanceof Uint8Array) {
      if (schema["x-check"] === "base64") return Buffer.from(value).toString("base64");
      if (schema["x-check"] !== "ulid" || value.length !== 16) throw new Error("bytes that are no id");
      return ulid(value);
    }
    if (schema["x-check"] === "ulid" && new RegExp(schema.pattern).test(value)) throw new Error("an id as text");
    if (schema["x-cbor-value"]) {
      if (value in schema["x-cbor-value"]) throw new Error(`${value} has a number`);
      return Object.entries(schema["x-cbor-value"]).find(([, number]) => number === value)?.[0] ?? value;
    }
    if (Array.isArray(value)) return value.map((item) => this.restore(item, schema.items ?? {}, root));
    return value instanceof Map ? this.object(value, schema, root) : value;
  }

  object(map, schema, root) {
    const properties = this.properties(schema, root);
    const byKey = new Map(Object.entries(properties ?? {}).map(([name, child]) => [child["x-cbor-key"], [name, child]]));
    const object = {};
    for (const [key, value] of map) {
      if (properties && key in properties) throw new Error(`${key} has a number`);
      if (!properties && isNumber(key)) throw new Error("no key");
      const [name, child] = byKey.get(key) ?? [isNumber(key) ? `#${key}` : key, {}];
      object[name] = this.restore(value, child, root);
    }
    return object;
  }

  fromProtobuf(bytes) {
    const { meta } = this.parsed("Frame", bytes);
    const contract = meta && this.proto.lookup(`nervus.v1.${meta.contract}`);
    if (!contract) return { meta: this.plain(meta, this.envelope.$defs.meta, this.envelope) };
    const schema = this.contracts[meta.contract];
    const message = this.parsed(meta.contract, bytes);
    const parts = { meta: [this.envelope.$defs.meta, this.envelope], errors: [this.envelope.$defs.errors, this.envelope] };
    const read = ([name, value]) => [name, this.plain(value, ...(parts[name] ?? [schema.properties[name], schema]))];
    return Object.fromEntries(Object.entries(message).map(read));
  }

  /** What protobufjs reads; what it lost in silence shows when it is written again. */
  parsed(name, bytes) {
    const type = this.proto.lookupType(`nervus.v1.${name}`);
    const message = type.decode(bytes);
    const again = type.encode(message).finish();
    const sum = (octets) => octets.reduce((total, octet) => total + octet, 0); // smaller where a true was no 1
    if (again.length !== bytes.length || sum(again) !== sum(bytes)) throw new Error("not strict");
    return type.toObject(message, { longs: Number, bytes: String, oneofs: false });
  }

  plain(value, reference, home) {
    const [schema, root] = this.resolve(reference, home);
    if (isNumber(value)) return number(value, schema);
    if (typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map((item) => this.plain(item, schema.items, root));
    if (schema.type === "array") return (value.items ?? []).map((item) => this.plain(item, schema.items, root));
    const properties = this.properties(schema, root);
    if (properties) {
      const read = ([name, child]) => [name, this.plain(child, properties[name], root)];
      return Object.fromEntries(Object.entries(value).map(read));
    }
    if (schema.anyOf) {
      const [kind] = Object.values(value);
      if (kind === undefined) throw new Error("a choice without a value");
      return this.plain(kind, schema.anyOf.find((option) => option.type === "object") ?? {}, root);
    }
    const read = ([name, child]) => [name, this.plain(child, schema.additionalProperties, root)];
    return Object.fromEntries(Object.entries(value.entries ?? {}).map(read));
  }
}

function number(value, schema) {
  if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value) && schema.type !== "number")) {
    throw new Error(`${value} is beyond what a number holds`);
  }
  return Object.entries(schema["x-cbor-value"] ?? {}).find(([, each]) => each === value)?.[0] ?? value;
}

function ulid(bytes) {
  let value = BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
  let text = "";
  for (; text.length < 26; value >>= 5n) text = CROCKFORD[Number(value & 31n)] + text;
  return text;
}
