// A reader of delta-only streams by JOINING.md alone: bundles as JSON, a line each, come in; each goes out whole, or as null
// while its key frame is missing.
import { createInterface } from "node:readline";

const KEPT = 8; // key frames of a stream
const NAMES = ["sensor_type", "device_id", "unit"];
const streams = new Map();

function whole({ meta, payload }) {
  const stream = JSON.stringify([meta.source, meta.scope_level, meta.scope, payload.channel]);
  const frames = streams.get(stream) ?? new Map();
  streams.set(stream, frames);
  const { delta_of, ...said } = payload;
  if (!delta_of) {
    frames.set(meta.message_id, payload);
    if (frames.size > KEPT) frames.delete(frames.keys().next().value);
    return payload;
  }
  const frame = frames.get(delta_of);
  if (!frame) return null;
  const nameOf = (feature) => JSON.stringify(NAMES.map((name) => feature[name] ?? null));
  const features = new Map(frame.summary_features.map((feature) => [nameOf(feature), feature]));
  for (const feature of said.summary_features) {
    features.set(nameOf(feature), { ...features.get(nameOf(feature)), ...feature });
  }
  const sources = said.sources ?? frame.sources;
  return { ...said, ...(sources && { sources }), summary_features: [...features.values()] };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(whole(JSON.parse(line))));
}
