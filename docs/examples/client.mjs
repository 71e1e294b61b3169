// Asks, follows, cancels and looks who answers: node client.mjs QUESTION
import { connect } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { Svcm } from "@nats-io/services";
import { randomBytes } from "node:crypto";

const question = process.argv[2];
const connection = await connect({
  servers: process.env.SKELGRAPH_NATS_URL ?? "nats://127.0.0.1:4222",
});

async function call(subject, body = {}) {
  const reply = await connection.request(subject, JSON.stringify(body), { timeout: 30_000 });
  const code = reply.headers?.get("Nats-Service-Error-Code");
  if (code) throw new Error(`${code}: ${reply.json().message}`);
  return reply.json();
}

// Who answers.
for await (const service of await new Svcm(connection).client().info()) {
  const names = service.endpoints.map((endpoint) => endpoint.name);
  console.log(service.name, service.version, [...new Set(names)].join(" "));
}

// Store a request, and follow its facts to the end.
const request = randomBytes(8).toString("hex");
await call("skelgraph.v1.submit", { request, question, mode: "sgd" });
const consumer = await jetstream(connection).consumers.get("SKELGRAPH_EVENTS", {
  filter_subjects: [`skelgraph.v1.event.*.${request}.>`],
});
for await (const message of await consumer.consume()) {
  const fact = message.json();
  console.log(message.seq, fact.type);
  if (["AnswerAssembled", "SkeletonDrafted", "RequestFailed"].includes(fact.type)) break;
}

// The same request again is the same answer.
const answer = await call("skelgraph.v1.answer", { request, question, mode: "sgd" });
console.log(answer.type, answer.text ?? answer.error.message);

// Another one under its id is refused, and a new one can be cancelled.
await call("skelgraph.v1.answer", { request, question: "Another one?" }).catch((error) =>
  console.log(error.message),
);
const other = await call("skelgraph.v1.submit", { question });
console.log(await call(`skelgraph.v1.cancel.${other.request}`, { reason: "changed my mind" }));
await connection.close();
