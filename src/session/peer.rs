//! Who is at the other end of the socket, as the kernel says.
