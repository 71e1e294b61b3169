// Asks, follows, cancels and looks who answers: node client.mjs QUESTION
import { connect, credsAuthenticator } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { Svcm } from "@nats-io/services";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

const question = process.argv[2];
const {
  SKELGRAPH_NATS_URL: servers = "nats://127.0.0.1:4222",
  SKELGRAPH_NATS_CREDS: credentials,
  SKELGRAPH_NATS_CA: caFile,
  SKELGRAPH_NATS_CERT: certFile,
  SKELGRAPH_NATS_KEY: keyFile,
  SKELGRAPH_ID_PREFIX: tenant = "", // "@acme."
} = process.env;
const connection = await connect({
  servers,
  ...(credentials && { authenticator: credsAuthenticator(readFileSync(credentials)) }),
  // An address has no TLS server name: without `host`, Node would look for "localhost".
  ...(caFile && { tls: { caFile, certFile, keyFile, host: new URL(servers).hostname } }),
});

async function call(subject, body = {}) {
  const reply = await connection.request(subject, JSON.stringify(body), { timeout: 30_000 });
  const code = reply.headers?.get("Nats-Service-Error-Code");
  if (code) throw new Error(`${code}: ${reply.json().message}`);
  return reply.json();
}

// Who answers. (A tenant is not told.)
if (!tenant)
  for await (const service of await new Svcm(connection).client().info()) {
    const names = service.endpoints.map((endpoint) => endpoint.name);
    console.log(service.name, service.version, [...new Set(names)].join(" "));
  }

// Store a request, and follow its facts to the end.
const request = tenant + randomBytes(8).toString("hex");
const said = connection.subscribe(`skelgraph.v1.fact.*.${request}.>`);
await call("skelgraph.v1.submit", { request, question, mode: "sgd" });
for await (const message of tenant ? said : await stored(request)) {
  const fact = message.json();
  console.log(message.seq ?? message.headers.get("Nats-Sequence"), fact.type);
  if (["AnswerAssembled", "SkeletonDrafted", "RequestFailed"].includes(fact.type)) break;
}

async function stored(request) {
  const consumer = await jetstream(connection).consumers.get("SKELGRAPH_EVENTS", {
    filter_subjects: [`skelgraph.v1.event.*.${request}.>`],
  });
  return consumer.consume();
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
