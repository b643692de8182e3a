//! Several processes that train one job together, each on its share of every batch.
//!
//! The first rank is the process that was asked to train. It starts the others by the same program, each with a socket in the
//! place of its standard input, and alone says events, saves and evaluates. The gradients of a step are added in the order
//! of the ranks, by the first one, which gives the sum to all: so every rank makes the same update to the bit, and no
//! weights are ever sent. Where something else adds them up, as NCCL does between GPUs, only small numbers go this way. A rank
//! that ends is missed by the others at their next sum, or while they wait for one, and they end too.

use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::failure::{Failure, Kind};

/// How long the first rank waits for the others to end before it ends them.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long something that all ranks do is waited for at full speed: it is mostly done by then, if not a rank is busy otherwise.
const SOON: Duration = Duration::from_millis(2);
/// Time from one try to the next from then on.
const BETWEEN_TRIES: Duration = Duration::from_micros(50);
/// How often the other ranks are looked for meanwhile.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// One of the processes, and its way to the others.
#[derive(Debug)]
pub struct Ranks {
    rank: u32,
    count: u32,
    /// The first rank's: one to each other, in their order. Another's: the one to the first.
    sockets: Vec<UnixStream>,
    children: Vec<Child>,
}

impl Ranks {
    /// The first of `count` ranks: starts the others on the job in the file `job`.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn first(count: u32, job: &Path) -> Result<Self, Failure> {
        let cannot =
            |error: io::Error| Failure::new(Kind::Os, format!("the other ranks cannot be started: {error}"));
        let program = std::env::current_exe().map_err(cannot)?;
        let mut ranks = Self { rank: 0, count, sockets: Vec::new(), children: Vec::new() };
        for rank in 1..count {
            let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
            let child = Command::new(&program)
                .arg("--job")
                .arg(job)
                .arg("--rank")
                .arg(rank.to_string())
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .spawn()
                .map_err(cannot)?;
            ranks.sockets.push(ours);
            ranks.children.push(child);
        }
        Ok(ranks)
    }

    /// Another of `count` ranks than the first, which has started this process.
    ///
    /// # Errors
    /// The standard input is no socket.
    pub fn another(rank: u32, count: u32) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            let message = format!("this is no rank that another process has started: {error}");
            Failure::new(Kind::Usage, message)
        };
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(cannot)?;
        let socket = UnixStream::from(input);
        socket.peer_addr().map_err(cannot)?;
        Ok(Self { rank, count, sockets: vec![socket], children: Vec::new() })
    }

    /// Which one it is, from 0.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds up each of `parts` over all ranks, in their order: every rank gets the same sums. All ranks call it with parts of
    /// the same lengths.
    ///
    /// # Errors
    /// Of the kind `parted`: another rank has ended.
    pub fn sum(&mut self, parts: &mut [&mut [f32]]) -> Result<(), Failure> {
        parts.iter_mut().try_for_each(|part| self.exchange(part))
    }

    /// The sum of a number over all ranks.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn sum_of(&mut self, number: f64) -> Result<f64, Failure> {
        let mut numbers = [number];
        self.exchange(&mut numbers)?;
        Ok(numbers[0])
    }

    /// The first rank's bytes, for all.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn from_first<const N: usize>(&mut self, bytes: [u8; N]) -> Result<[u8; N], Failure> {
        let mut all = if self.rank == 0 { bytes } else { [0; N] };
        self.exchange(&mut all)?;
        Ok(all)
    }

    /// Returns when something is done that all ranks do together, and not by these sockets.
    ///
    /// # Errors
    /// What `is_done` failed with; or, of the kind `parted`, another rank has ended.
    pub fn wait(&self, mut is_done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
        let began = Instant::now();
        let mut seen = began;
        while !is_done()? {
            match began.elapsed() < SOON {
                true => std::thread::yield_now(),
                false => std::thread::sleep(BETWEEN_TRIES),
            }
            if seen.elapsed() > BETWEEN_LOOKS {
                self.see_all()?;
                seen = Instant::now();
            }
        }
        Ok(())
    }

    /// Refuses to go on without a rank that has ended.
    fn see_all(&self) -> Result<(), Failure> {
        for (place, socket) in self.sockets.iter().enumerate() {
            let mut byte = [0];
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            match rustix::net::recv(socket, &mut byte, flags) {
                // It waits for nobody, or is ahead.
                Err(Errno::AGAIN | Errno::INTR) | Ok((_, 1..)) => {}
                Ok(_) | Err(_) => return Err(missed(self.rank, place)),
            }
        }
        Ok(())
    }

    /// The others send what they have, one after the other, and are sent the sum: nobody waits for a rank that waits itself to
    /// be read.
    fn exchange<T: Pod + AddAssign>(&mut self, numbers: &mut [T]) -> Result<(), Failure> {
        let rank = self.rank;
        let of = |place: usize| move |_: io::Error| missed(rank, place);
        if rank > 0 {
            return self.sockets.iter_mut().try_for_each(|socket| {
                socket.write_all(cast_slice(numbers)).map_err(of(0))?;
                socket.read_exact(cast_slice_mut(numbers)).map_err(of(0))
            });
        }
        let mut theirs = vec![T::zeroed(); numbers.len()];
        for (place, socket) in self.sockets.iter_mut().enumerate() {
            socket.read_exact(cast_slice_mut(&mut theirs)).map_err(of(place))?;
            numbers.iter_mut().zip(&theirs).for_each(|(sum, more)| *sum += *more);
        }
        for (place, socket) in self.sockets.iter_mut().enumerate() {
            socket.write_all(cast_slice(numbers)).map_err(of(place))?;
        }
        Ok(())
    }
}

/// What a rank says when the one at the other end of a socket, by its place, has ended.
fn missed(rank: u32, place: usize) -> Failure {
    let message = match rank {
        0 => format!("rank {} has ended: the log has its words", place + 1),
        _ => "the first rank has ended".to_owned(),
    };
    Failure::new(Kind::Parted, message)
}

impl Drop for Ranks {
    /// The others see that their socket is closed, and end; one that does not is ended.
    fn drop(&mut self) {
        self.sockets.clear();
        let deadline = Instant::now() + PATIENCE;
        for child in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            // It has ended already, or ends now; there is nobody to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks in threads of this process.
    fn ranks(count: u32) -> Vec<Ranks> {
        let (ours, theirs): (Vec<_>, Vec<_>) = (1..count).map(|_| UnixStream::pair().unwrap()).unzip();
        let first = Ranks { rank: 0, count, sockets: ours, children: Vec::new() };
        let others = theirs.into_iter().zip(1..).map(|(socket, rank)| Ranks {
            rank,
            count,
            sockets: vec![socket],
            children: Vec::new(),
        });
        std::iter::once(first).chain(others).collect()
    }

    #[test]
    fn every_rank_gets_the_same_sum_in_the_order_of_ranks() {
        // So much that no socket holds it, and numbers whose sum hangs on the order.
        let long = 1 << 20;
        let value = |rank: u32, at: usize| ((at % 97) as f32 - 48.0) * 10f32.powi(rank as i32 * 3);
        let sums: Vec<(Vec<f32>, Vec<f32>, f64)> = std::thread::scope(|threads| {
            let summing = ranks(3).into_iter().map(|mut ranks| {
                threads.spawn(move || {
                    let rank = ranks.rank();
                    let mut one: Vec<f32> = (0..long).map(|at| value(rank, at)).collect();
                    let mut other = vec![1.0 + rank as f32; 5];
                    ranks.sum(&mut [&mut one, &mut other]).unwrap();
                    (one, other, ranks.sum_of(f64::from(rank) + 0.25).unwrap())
                })
            });
            summing.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let expected: Vec<f32> = (0..long).map(|at| value(0, at) + value(1, at) + value(2, at)).collect();
        for (one, other, number) in sums {
            assert!(one == expected);
            assert_eq!((other, number), (vec![6.0; 5], 3.75));
        }
    }

    #[test]
    fn all_get_the_bytes_of_the_first() {
        let all: Vec<[u8; 3]> = std::thread::scope(|threads| {
            let asking = ranks(3).into_iter().map(|mut ranks| {
                threads.spawn(move || {
                    let own = [200 + ranks.rank() as u8, 255, 0];
                    ranks.from_first(own).unwrap()
                })
            });
            asking.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all, [[200, 255, 0]; 3]);
    }

    #[test]
    fn who_waits_sees_that_another_has_ended() {
        let mut all = ranks(3);
        let mut looks = 0;
        let twice = || {
            looks += 1;
            Ok(looks == 2)
        };
        assert_eq!(all[0].wait(twice), Ok(()));
        // What a rank that is ahead has said already is no end, and is still there afterwards.
        all[1].sockets[0].write_all(&1f64.to_le_bytes()).unwrap();
        let until = Instant::now() + 3 * BETWEEN_LOOKS;
        assert_eq!(all[0].wait(|| Ok(Instant::now() > until)), Ok(()));
        drop(all.pop());
        let failure = all[0].wait(|| Ok(false)).unwrap_err();
        assert_eq!(failure.kind, Kind::Parted);
        assert!(failure.message.contains("rank 2 has ended"), "{failure}");
        let failed = all[0].wait(|| Err(Failure::new(Kind::Device, "it is broken"))).unwrap_err();
        assert_eq!(failed.kind, Kind::Device);
        all.remove(0);
        let failure = all[0].wait(|| Ok(false)).unwrap_err();
        assert!(failure.message.contains("the first rank has ended"), "{failure}");
    }

    #[test]
    fn a_rank_that_has_ended_is_missed() {
        let mut all = ranks(3);
        drop(all.pop());
        let mut second = all.pop().unwrap();
        let mut first = all.pop().unwrap();
        let other = std::thread::spawn(move || second.sum_of(1.0));
        let failure = first.sum_of(1.0).unwrap_err();
        assert_eq!(failure.kind, Kind::Parted);
        assert!(failure.message.contains("rank 2 has ended"), "{failure}");
        drop(first);
        let failure = other.join().unwrap().unwrap_err();
        assert!(failure.message.contains("the first rank has ended"), "{failure}");
    }
}
