//! Which GPU a rank takes, and how ranks exchange the memory of their GPUs.

use std::collections::HashSet;
use std::sync::Arc;

use cloze_tensor::Device;

use super::{Communicator, gather_bytes};
use crate::{Error, Result};

/// Opens the device of this rank: `cpu`, `cuda`, `cuda:N` or `auto`, as [`Device::from_str`](std::str::FromStr) reads them. If
/// there are several ranks, `cuda` is a GPU of its own for each, the first that none before it has taken, and `auto` is a GPU
/// only if each can have one. All ranks must call this.
///
/// # Errors
/// Returns the errors of [`Device::from_str`](std::str::FromStr), and an error if a rank has no GPU of its own.
pub fn open_device(name: &str, ranks: &dyn Communicator) -> Result<Device> {
    if ranks.size() == 1 {
        return Ok(name.parse()?);
    }
    let own = Device::gpu_uuids();
    let seen = gather_bytes(ranks, own.as_flattened())?;
    let seen: Vec<&[[u8; 16]]> = seen.iter().map(|bytes| bytes.as_chunks().0).collect();
    let index = match name {
        "cuda" => Some(choice(&seen, ranks)?),
        "auto" => choice(&seen, ranks).ok(),
        _ => {
            check_named(name, &own, ranks)?;
            return Ok(name.parse()?);
        }
    };
    Ok(match index {
        Some(index) => Device::cuda(index[ranks.rank()])?,
        None => Device::Cpu,
    })
}

/// Returns the number of the GPU that each rank takes, of those that each sees: the first that no rank before it has taken.
fn choice(seen: &[&[[u8; 16]]], ranks: &dyn Communicator) -> Result<Vec<usize>> {
    let mut taken = HashSet::new();
    let mut choose = |(rank, gpus): (usize, &&[[u8; 16]])| {
        let index = gpus.iter().position(|gpu| taken.insert(*gpu));
        index.ok_or_else(|| {
            let name = ranks.name(rank);
            if gpus.is_empty() {
                // Of this rank, the reason is known: no driver, no GPU, or a program without the feature.
                let reason = Device::cuda(0).err().filter(|_| rank == ranks.rank());
                let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
                return Error::data("ranks", format!("{name} sees no GPU{reason}: use --device cpu on all ranks"));
            }
            let sharing = seen.iter().filter(|other| other.iter().any(|gpu| gpus.contains(gpu))).count();
            let why = format!(
                "{sharing} ranks share {} GPU(s), so {name} has none: start one rank per GPU, at most {} on its host",
                gpus.len(),
                gpus.len()
            );
            Error::data("ranks", why)
        })
    };
    seen.iter().enumerate().map(&mut choose).collect()
}

/// Checks that no other rank takes the GPU that `name`, `cuda:N`, is here.
fn check_named(name: &str, own: &[[u8; 16]], ranks: &dyn Communicator) -> Result<()> {
    let index = name.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok());
    let uuid = index.and_then(|index| own.get(index)).map_or(&[][..], |uuid| uuid);
    let all = gather_bytes(ranks, uuid)?;
    let mut pairs = all.iter().enumerate().filter(|(_, uuid)| !uuid.is_empty());
    match pairs.find_map(|(rank, uuid)| Some((all[..rank].iter().position(|other| other == uuid)?, rank))) {
        None => Ok(()),
        Some((first, second)) => {
            let (first, second) = (ranks.name(first), ranks.name(second));
            let why = format!("{name} is one GPU for {first} and {second}: --device cuda gives each rank its own");
            Err(Error::data("ranks", why))
        }
    }
}

/// Returns the same ranks, which exchange the memory of their GPUs over NCCL if `device` is one and this was built with the
/// feature `nccl`. Otherwise it travels through the memory of the hosts. All ranks must call this.
///
/// # Errors
/// Returns the errors of `Nccl::new`.
pub fn over_gpus(ranks: Arc<dyn Communicator>, device: &Device) -> Result<Arc<dyn Communicator>> {
    #[cfg(feature = "nccl")]
    if ranks.size() > 1 && !device.is_cpu() {
        return Ok(Arc::new(super::Nccl::new(ranks, device)?));
    }
    let _ = device;
    Ok(ranks)
}

#[cfg(test)]
mod tests {
    use super::super::{Alone, Threads};
    use super::*;

    fn gpu(number: u8) -> [u8; 16] {
        [number; 16]
    }

    #[test]
    fn each_rank_takes_a_gpu_of_its_own() {
        let chosen = |seen: &[&[[u8; 16]]]| choice(seen, &Alone).map_err(|error| error.to_string());
        let (all, other) = ([gpu(1), gpu(2)], [gpu(3), gpu(4)]);
        // Two hosts with two GPUs each, whose ranks come in turns.
        assert_eq!(chosen(&[&all, &other, &all, &other]), Ok(vec![0, 0, 1, 1]));
        // A launcher that shows each rank one GPU.
        assert_eq!(chosen(&[&all[..1], &all[1..]]), Ok(vec![0, 0]));
        assert_eq!(
            chosen(&[&all, &all, &all]).unwrap_err(),
            "ranks: 3 ranks share 2 GPU(s), so rank 2 has none: start one rank per GPU, at most 2 on its host"
        );
        assert_eq!(chosen(&[&all, &[]]).unwrap_err(), "ranks: rank 1 sees no GPU: use --device cpu on all ranks");
    }

    #[test]
    fn a_gpu_of_two_ranks_is_refused() {
        let results = Threads::run(3, |ranks| check_named("cuda:1", &[gpu(1), gpu(ranks.rank() as u8 / 2)], &*ranks));
        for result in results {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("ranks: cuda:1 is one GPU for rank 0 and rank 1"), "{error}");
        }
        assert!(Threads::run(2, |ranks| check_named("cpu", &[gpu(1)], &*ranks)).iter().all(Result::is_ok));
    }
}
