//! Unix sockets whose kernel names the sender of every byte (`unix(7)`, `SCM_CREDENTIALS`).
//!
//! What a stream socket hands out in one go comes from one sender: the kernel does not join the bytes of
//! two (`unix_stream_read_generic`, since credentials can be asked for). Imports `peer` alone.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::ReadBuf;

use super::peer::{Credentials, has_ended};

/// Of `asm-generic/socket.h`; Linux 6.5. `nix` has no name for them.
const SO_PASSPIDFD: libc::c_int = 76;
const SCM_PIDFD: libc::c_int = 4;

/// Room for the credentials and nothing else: what does not fit, the kernel keeps. So no descriptor is made for
/// us, neither a pidfd nor one that a sender sends along.
const CREDENTIALS_ONLY: usize = space(size_of::<libc::ucred>());
/// Room for a pidfd as well.
const WITH_PIDFD: usize = CREDENTIALS_ONLY + space(size_of::<libc::c_int>());

/// `CMSG_SPACE`.
const fn space(length: usize) -> usize {
    let word = size_of::<usize>();
    size_of::<libc::cmsghdr>().next_multiple_of(word) + length.next_multiple_of(word)
}

/// Bytes of one sender.
#[derive(Debug)]
pub struct Received {
    /// How many; 0 at the end of the stream.
    pub length: usize,
    /// `None`: the kernel named nobody.
    pub sender: Option<Credentials>,
    /// Pins the sender. Asked for by [`receive_pinned`].
    pub pin: Pin,
}

/// What the kernel gave to pin a sender.
#[derive(Debug)]
pub enum Pin {
    /// Nothing: it was not asked, or is older than 6.5.
    Absent,
    /// No descriptor can be had: the sender was reaped before it was asked for, or we are out of them. Its pid may
    /// be somebody else's by now.
    Lost,
    /// A pidfd.
    Held(OwnedFd),
}

impl Pin {
    /// Of a number that the kernel has just made for us, or of the error in its place.
    fn of(made: Option<OwnedFd>) -> Self {
        made.map_or(Self::Lost, Self::Held)
    }

    /// Another descriptor of the same process; [`Pin::Lost`] if none can be had.
    pub fn again(&self) -> Self {
        match self {
            Self::Absent => Self::Absent,
            Self::Lost => Self::Lost,
            Self::Held(pidfd) => Self::of(pidfd.try_clone().ok()),
        }
    }

    /// Whether its process has ended, as far as that can be told: what comes under its pid is of another one.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Lost => true,
            Self::Held(pidfd) => has_ended(pidfd).unwrap_or(true),
        }
    }
}

/// Asks the kernel to name senders. Set on a listener it holds for what is accepted from it, from the first
/// byte on.
pub fn name_senders(socket: impl AsFd) -> nix::Result<()> {
    setsockopt(&socket, sockopt::PassCred, &true)?;
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives over the call. `nix` does not know the option.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match Errno::result(set) {
        Ok(_) | Err(Errno::ENOPROTOOPT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Reads without waiting: bytes of one sender, and who that is.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: bytes that are initialised are so as well where they need not be, and the kernel only writes there.
    let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
    receive_with::<CREDENTIALS_ONLY>(socket, buffer)
}

/// The same into the room that a buffer has, at most so much of it, which is not written to before.
pub fn receive_into(socket: impl AsFd, buffer: &mut ReadBuf<'_>, most: usize) -> io::Result<Received> {
    // SAFETY: nothing is written there but what the kernel writes, so nothing becomes uninitialised.
    let room = unsafe { buffer.unfilled_mut() };
    let most = most.min(room.len());
    let received = receive_with::<CREDENTIALS_ONLY>(socket, &mut room[..most])?;
    // SAFETY: the kernel has written so many bytes to its beginning.
    unsafe { buffer.assume_init(received.length) };
    buffer.advance(received.length);
    Ok(received)
}

/// The same with a descriptor that pins the sender. `EBADMSG` if it sends descriptors along.
pub fn receive_pinned(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: as in `receive`.
    let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
    receive_with::<WITH_PIDFD>(socket, buffer)
}

#[repr(C, align(8))]
struct Control<const N: usize>([u8; N]);

fn receive_with<const N: usize>(socket: impl AsFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<Received> {
    let mut control = Control([0; N]);
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a message header of zeros is valid: no name, no data, no control.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = N as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to `buffer` and `control`, with their lengths, and both outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let length = Errno::result(length)?.cast_unsigned();
    let mut received = Received { length, sender: None, pin: Pin::Absent };
    let mut burdened = false;
    // SAFETY: the kernel has filled `control` as far as `msg_controllen` says, and the macros stay within it.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !part.is_null() {
        // SAFETY: `part` lies within `control`, is aligned like it, and was written by the kernel.
        let (level, kind) = unsafe { ((*part).cmsg_level, (*part).cmsg_type) };
        // SAFETY: as above; what follows the head of these kinds is a `ucred` or an int.
        let content = unsafe { libc::CMSG_DATA(part) };
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                // SAFETY: as above.
                let named = unsafe { content.cast::<libc::ucred>().read_unaligned() };
                let pid = named.pid.try_into().unwrap_or(0);
                received.sender = Some(Credentials { uid: named.uid, gid: named.gid, pid });
            }
            (libc::SOL_SOCKET, SCM_PIDFD | libc::SCM_RIGHTS) => {
                // SAFETY: as above; the length counts the head.
                let bytes = unsafe { (*part).cmsg_len } as usize - space(0);
                for at in 0..bytes / size_of::<libc::c_int>() {
                    // SAFETY: the kernel has written as many ints as fit into these bytes.
                    let number = unsafe { content.cast::<libc::c_int>().add(at).read_unaligned() };
                    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number. A
                    // negative number (the sender is gone) is none.
                    let made = (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) });
                    match kind {
                        SCM_PIDFD => received.pin = Pin::of(made),
                        // Dropped: closed at once.
                        _ => burdened = true,
                    }
                }
            }
            _ => {}
        }
        // SAFETY: as for the first.
        part = unsafe { libc::CMSG_NXTHDR(&raw const message, part) };
    }
    // They come before the pidfd and may have taken its room; no client of ours sends any.
    if burdened { Err(Errno::EBADMSG.into()) } else { Ok(received) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        name_senders(&near).unwrap();
        (near, far)
    }

    /// How many descriptors of this process are that socket.
    fn copies(of: &UnixStream) -> usize {
        let name = |number: i32| std::fs::read_link(format!("/proc/self/fd/{number}"));
        let wanted = name(of.as_raw_fd()).unwrap();
        (0..1024).filter(|number| name(*number).is_ok_and(|found| found == wanted)).count()
    }

    #[test]
    fn bytes_of_two_senders_are_never_joined_and_each_is_named() {
        let (near, mut far) = pair();
        far.write_all(b"own").unwrap();
        let shared: BorrowedFd<'_> = far.as_fd();
        let mut child = Command::new("sh");
        child.args(["-c", "printf theirs"]).stdout(Stdio::from(shared.try_clone_to_owned().unwrap()));
        let mut child = child.spawn().unwrap();
        child.wait().unwrap();
        far.write_all(b"own again").unwrap();
        let mut buffer = [0; 64];
        let own = std::process::id();
        for (text, pid) in [(&b"own"[..], own), (b"theirs", child.id()), (b"own again", own)] {
            let received = receive(&near, &mut buffer).unwrap();
            assert_eq!(&buffer[..received.length], text);
            assert_eq!(received.sender.unwrap().pid, pid);
        }
    }

    #[test]
    fn the_sender_is_pinned_on_request_and_nothing_that_it_sends_along_is_taken() {
        let (near, far) = pair();
        let before = copies(&far);
        let sent = [far.as_raw_fd(); 8];
        for _ in 0..3 {
            let control = [ControlMessage::ScmRights(&sent)];
            sendmsg::<()>(far.as_raw_fd(), &[io::IoSlice::new(b"x")], &control, MsgFlags::empty(), None)
                .unwrap();
        }
        let mut buffer = [0; 1];
        assert!(matches!(receive(&near, &mut buffer).unwrap().pin, Pin::Absent));
        assert_eq!(copies(&far), before);
        for _ in 0..2 {
            let refused = receive_pinned(&near, &mut buffer).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EBADMSG));
        }
        assert_eq!(copies(&far), before);
        (&far).write_all(b"x").unwrap();
        let pinned = receive_pinned(&near, &mut buffer).unwrap();
        assert!(
            matches!(pinned.pin, Pin::Held(_)) && !pinned.pin.has_ended() && !pinned.pin.again().has_ended()
        );
        assert_eq!(receive(&near, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
