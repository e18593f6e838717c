// A board that lies, to see who believes it. Ten times a second it sends one true humidity and two messages that
// must not count: one whose message_type differs from its contract in a letter's case, one in another board's name.
//   NERVUS_BROKER=mqtts://HOST:PORT NERVUS_IDENTITY=FOLDER node hostile.mjs LEVEL/SCOPE OTHER_BOARD
import { compose, identity, ulid } from "./wire.mjs";

const { NERVUS_BROKER, NERVUS_IDENTITY } = process.env;
const [place, other] = process.argv.slice(2);
const [scope_level, scope] = place.split("/");
const { name: device_id, join } = identity(NERVUS_BROKER, NERVUS_IDENTITY);
const boot = Math.trunc(Date.now() / 1000);
let seq = 0;

const client = await join();
client.on("error", (error) => { throw error; });
setInterval(() => {
  send(50, {});
  send(999, { message_type: "afferentSignal" });
  send(999, { source: `device:${other}` });
}, 100);

function send(value, lie) {
  const meta = { message_id: ulid(Date.now()), source: `device:${device_id}`, boot, seq: seq++ };
  const levels = { scope_level, scope, sensor_type: "humidity", device_id };
  const payload = { sensor_type: "humidity", value, unit: "%" };
  const { topic, message } = compose("afferent", levels, payload, { ...meta, t_ms: Date.now(), clk: "ntp" });
  Object.assign(message.meta, lie);
  client.publish(topic, JSON.stringify(message), { qos: 0 });
}
