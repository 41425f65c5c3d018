// Leases a secret with nothing but proto/ and the broker's socket, and shows all but the value.
// Run from the repository's root: node examples/node/lease.mjs SOCKET ROLE RESOURCE
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const files = ["session", "lease"].map((name) => `ravi/broker/v1/${name}.proto`);
const { SessionService, LeaseService } =
  grpc.loadPackageDefinition(loadSync(files, { includeDirs: ["proto"] })).ravi.broker.v1;

// One method of a service as a promise; each call has ten seconds.
function caller(service, socket) {
  const client = new service(`unix:${socket}`, grpc.credentials.createInsecure());
  return (method, request, metadata = new grpc.Metadata()) =>
    promisify(client[method]).call(client, request, metadata, { deadline: Date.now() + 10_000 });
}

async function main(socket, role, resource) {
  const session = caller(SessionService, socket);
  const lease = caller(LeaseService, socket);

  const opened = await session("openSession", { role, reason: "node example" });
  const proof = new grpc.Metadata();
  proof.set("authorization", `Bearer ${opened.token}`);
  console.log(`session ${opened.session.sessionId} of role ${opened.session.role}`);

  const answer = await lease("acquireLease", { resource }, proof);
  console.log(`lease ${answer.lease.leaseId} of ${answer.lease.resource}`);
  console.log(`ends in ${answer.lease.expiresIn.seconds} s, value of ${answer.credential.value.length} characters`);

  await lease("releaseLease", { leaseId: answer.lease.leaseId }, proof);
  await session("closeSession", {}, proof);
  console.log("released and closed");
}

await main(...process.argv.slice(2)).catch((error) => {
  console.error(`${grpc.status[error.code] ?? error.name}: ${error.details ?? error.message}`);
  process.exitCode = 1;
});
