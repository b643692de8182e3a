//! Several processes that train one job together, each on its share of every batch.
//!
//! The first rank is the process that was asked to train. It starts the others by the same program, each with a socket in the
//! place of its standard input, and alone says events, saves and evaluates. The gradients of a step are added in the order
//! of the ranks, by the first one, which gives the sum to all: so every rank makes the same update to the bit, and no
//! weights are ever sent. A rank that ends is missed by the others at their next sum, and they end too.

use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use crate::failure::{Failure, Kind};

/// How long the first rank waits for the others to end before it ends them.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of the processes, and its way to the others.
#[derive(Debug)]
pub struct Ranks {
    rank: u32,
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
        let mut ranks = Self { rank: 0, sockets: Vec::new(), children: Vec::new() };
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

    /// Another rank than the first, which has started this process.
    ///
    /// # Errors
    /// The standard input is no socket.
    pub fn another(rank: u32) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            let message = format!("this is no rank that another process has started: {error}");
            Failure::new(Kind::Usage, message)
        };
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(cannot)?;
        let socket = UnixStream::from(input);
        socket.peer_addr().map_err(cannot)?;
        Ok(Self { rank, sockets: vec![socket], children: Vec::new() })
    }

    /// Which one it is, from 0.
    pub fn rank(&self) -> u32 {
        self.rank
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

    /// The others send what they have, one after the other, and are sent the sum: nobody waits for a rank that waits itself to
    /// be read.
    fn exchange<T: Pod + AddAssign>(&mut self, numbers: &mut [T]) -> Result<(), Failure> {
        if self.rank > 0 {
            let parted = |_| parted("the first rank has ended".to_owned());
            return self.sockets.iter_mut().try_for_each(|socket| {
                socket.write_all(cast_slice(numbers)).map_err(parted)?;
                socket.read_exact(cast_slice_mut(numbers)).map_err(parted)
            });
        }
        let of = |place: usize| {
            move |_: io::Error| parted(format!("rank {} has ended: the log has its words", place + 1))
        };
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

fn parted(message: String) -> Failure {
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
        let first = Ranks { rank: 0, sockets: ours, children: Vec::new() };
        let others = theirs.into_iter().zip(1..).map(|(socket, rank)| Ranks {
            rank,
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
