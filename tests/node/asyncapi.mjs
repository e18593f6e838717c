// Reads an AsyncAPI document with the AsyncAPI parser and prints, as JSON, what it finds and what it says of it.
// Usage: node asyncapi.mjs FILE
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const operations = (action) =>
  Object.fromEntries(
    document.operations().all().filter((each) => each.action() === action).map((each) => {
      const mqtt = each.bindings().get("mqtt")?.value() ?? {};
      const [channel] = each.channels().all();
      return [each.id(), { channel: channel.address(), messages: each.messages().all().map((m) => m.name()), mqtt }];
    }),
  );
console.log(
  JSON.stringify({
    diagnostics: diagnostics.map(({ severity, message, path }) => ({ severity, message, path: path.join("/") })),
    version: document?.version(),
    servers: document && document.servers().all().map((server) => server.id()),
    channels: document && Object.fromEntries(document.channels().all().map((each) => [each.id(), each.address()])),
    messages: document && document.components().messages().all().map((each) => each.name()),
    send: document && operations("send"),
    receive: document && operations("receive"),
  }),
);
