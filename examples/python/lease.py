"""Leases a secret with nothing but proto/ and the broker's socket, and shows all but the value.

Run from the repository's root: python3 examples/python/lease.py SOCKET ROLE RESOURCE
"""

import sys

import grpc

sys.path.append("proto")  # grpcio-tools looks for .proto files where Python looks for modules
sessions, session_service = grpc.protos_and_services("ravi/broker/v1/session.proto")
leases, lease_service = grpc.protos_and_services("ravi/broker/v1/lease.proto")

# grpcio sends the socket's path as the HTTP/2 authority. A path is no host name, so servers refuse it.
OPTIONS = [("grpc.default_authority", "localhost")]


def main(socket: str, role: str, resource: str) -> None:
    with grpc.insecure_channel(f"unix:{socket}", options=OPTIONS) as channel:
        session = session_service.SessionServiceStub(channel)
        lease = lease_service.LeaseServiceStub(channel)

        opened = session.OpenSession(sessions.OpenSessionRequest(role=role, reason="python example"), timeout=10)
        call = {"timeout": 10, "metadata": [("authorization", f"Bearer {opened.token}")]}
        print(f"session {opened.session.session_id} of role {opened.session.role}")

        answer = lease.AcquireLease(leases.AcquireLeaseRequest(resource=resource), **call)
        print(f"lease {answer.lease.lease_id} of {answer.lease.resource}")
        print(f"ends in {answer.lease.expires_in.seconds} s, value of {len(answer.credential.value)} characters")

        lease.ReleaseLease(leases.ReleaseLeaseRequest(lease_id=answer.lease.lease_id), **call)
        session.CloseSession(sessions.CloseSessionRequest(), **call)
        print("released and closed")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
