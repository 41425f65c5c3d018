// Waits for a code, and for the rotation of a secret that it has leased. Shows neither value.
// Run from the repository's root: node examples/node/watch.mjs SOCKET ROLE RESOURCE
import { once } from "node:events";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const files = ["session", "lease", "inbox"].map((name) => `ravi/broker/v1/${name}.proto`);
const { SessionService, LeaseService, InboxService } =
  grpc.loadPackageDefinition(loadSync(files, { includeDirs: ["proto"], enums: String })).ravi.broker.v1;

// A connection that has carried a value is closed soon after, so that each client has one of its own: the events carry none.
const connect = (service, socket) =>
  new service(`unix:${socket}`, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
const call = (client, method, request, proof = new grpc.Metadata()) =>
  promisify(client[method]).call(client, request, proof, { deadline: Date.now() + 10_000 });

async function main(socket, role, resource) {
  const [session, lease, inbox, quiet] =
    [SessionService, LeaseService, InboxService, LeaseService].map((service) => connect(service, socket));
  const proof = new grpc.Metadata();
  proof.set("authorization", `Bearer ${(await call(session, "openSession", { role })).token}`);
  const { leaseId } = (await call(lease, "acquireLease", { resource }, proof)).lease;
  const events = quiet.watchLeases({}, proof);
  const isOurs = (event) => event.kind === "KIND_ROTATED" && event.leaseId === leaseId;
  const rotated = new Promise((done, failed) => events.on("data", (event) => isOurs(event) && done()).on("error", failed));
  await once(events, "metadata"); // from here on nothing is missed
  const { watchId } = (await call(inbox, "openCodeWatch", { channel: "CHANNEL_SMS" }, proof)).watch;
  console.log("waiting for a code: have it sent now");
  let code = null;
  while (!code) ({ code } = await call(inbox, "awaitCode", { watchId, wait: { seconds: 5 } }, proof));
  console.log(`code of ${code.value.length} characters\nwaiting for a rotation`);
  await rotated;
  const fresh = await call(lease, "readLease", { leaseId }, proof);
  console.log(`rotated: value of ${fresh.credential.value.length} characters`);
  events.cancel();
  [session, lease, inbox, quiet].forEach((client) => client.close());
}

await main(...process.argv.slice(2));
