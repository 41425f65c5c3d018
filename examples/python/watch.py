"""Waits for a code, and for the rotation of a secret that it has leased. Shows neither value.

Run from the repository's root: python3 examples/python/watch.py SOCKET ROLE RESOURCE
"""

import sys

import grpc

sys.path.append("proto")
sessions, session_service = grpc.protos_and_services("ravi/broker/v1/session.proto")
leases, lease_service = grpc.protos_and_services("ravi/broker/v1/lease.proto")
inbox, inbox_service = grpc.protos_and_services("ravi/broker/v1/inbox.proto")

# The path of a socket is no authority: see lease.py. A connection that has carried a value is closed soon after, so the
# events, which carry none, come over one that the channels do not share.
OPTIONS = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]


def main(socket: str, role: str, resource: str) -> None:
    open_channel = lambda: grpc.insecure_channel(f"unix:{socket}", options=OPTIONS)
    with open_channel() as channel, open_channel() as quiet:
        opened = session_service.SessionServiceStub(channel).OpenSession(sessions.OpenSessionRequest(role=role), timeout=10)
        call = {"timeout": 10, "metadata": [("authorization", f"Bearer {opened.token}")]}
        lease, codes = lease_service.LeaseServiceStub(channel), inbox_service.InboxServiceStub(channel)
        held = lease.AcquireLease(leases.AcquireLeaseRequest(resource=resource), **call).lease
        events = lease_service.LeaseServiceStub(quiet).WatchLeases(leases.WatchLeasesRequest(), metadata=call["metadata"])
        events.initial_metadata()  # from here on nothing is missed

        watch = codes.OpenCodeWatch(inbox.OpenCodeWatchRequest(channel=inbox.CHANNEL_SMS), **call).watch
        print("waiting for a code: have it sent now", flush=True)
        ask = inbox.AwaitCodeRequest(watch_id=watch.watch_id, wait={"seconds": 5})
        while not (answer := codes.AwaitCode(ask, **call)).HasField("code"): pass
        print(f"code of {len(answer.code.value)} characters\nwaiting for a rotation", flush=True)
        next(event for event in events if (event.kind, event.lease_id) == (event.KIND_ROTATED, held.lease_id))
        fresh = lease.ReadLease(leases.ReadLeaseRequest(lease_id=held.lease_id), **call)
        print(f"rotated: value of {len(fresh.credential.value)} characters")

main(*sys.argv[1:])
