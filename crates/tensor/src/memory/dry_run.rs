//! Dry runs, which allocate and compute nothing: they find out how much memory work takes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lock;
use super::pool::Pool;
#[cfg(feature = "cuda")]
use crate::cuda::DryPool;
use crate::device::Device;
use crate::error::Result;
use crate::layout::Layout;
use crate::module::Module;
use crate::storage::Storage;
use crate::tensor::{Inner, Tensor, TensorId};

thread_local! {
    static CURRENT: RefCell<Option<DryRun>> = const { RefCell::new(None) };
    /// Whether there is a current one, which every operation asks.
    static IS_DRY: Cell<bool> = const { Cell::new(false) };
}

/// Measures how much memory work takes, without the memory and without the time.
///
/// Within [`run`](DryRun::run), operations check their operands, record graphs, and allocate and free tensors as always, but
/// the tensors take addresses and no memory, and no element is computed: all values are arbitrary. The blocks are kept for
/// reuse by the same rules as real ones, so the peak is that of the same work done for real.
///
/// ```
/// use cloze_tensor::{DType, Device, DryRun, Tensor};
/// let dry_run = DryRun::new();
/// let elements = dry_run.run(|| -> cloze_tensor::Result<usize> {
///     let x = Tensor::zeros(&[1 << 20, 1 << 10], DType::F32, &Device::Cpu)?.requires_grad(); // 4 GiB
///     let y = x.exp()?.exp()?;                                                              // two more of that size
///     Ok(y.elements())
/// })?;
/// assert_eq!(elements, 1 << 30);
/// assert_eq!(dry_run.peak(&Device::Cpu), 3 << 32);
/// assert_eq!(dry_run.used(&Device::Cpu), 0); // all of them are dropped
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct DryRun {
    host: Arc<Mutex<Pool>>,
    #[cfg(feature = "cuda")]
    gpu: DryPool,
}

impl DryRun {
    /// Makes a dry run with no memory in use.
    pub fn new() -> DryRun {
        DryRun::default()
    }

    /// Runs `work` on this thread without computing anything. Work that reads values must accept any. Tensors of `work` must
    /// not be used outside of dry runs.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Restore(Option<DryRun>);
        impl Drop for Restore {
            fn drop(&mut self) {
                IS_DRY.set(self.0.is_some());
                CURRENT.replace(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        IS_DRY.set(true);
        work()
    }

    /// Runs `work` as [`run`](DryRun::run) does, on a model whose parameters are replaced meanwhile by others of the same sizes,
    /// which count as in use from the start. Parameters in mapped files do not count.
    ///
    /// # Errors
    /// Returns an error if the addresses do not suffice.
    pub fn run_on<M: Module, R>(&self, model: &mut M, work: impl FnOnce(&mut M) -> R) -> Result<R> {
        let (mut originals, mut doubles, mut replaced) = (Vec::new(), HashMap::new(), Ok(()));
        model.visit_mut("", &mut |_, parameter| {
            if replaced.is_ok() {
                match self.run(|| double(parameter, &mut doubles)) {
                    Ok(double) => originals.push(std::mem::replace(parameter, double)),
                    Err(error) => replaced = Err(error),
                }
            }
        });
        drop(doubles);
        let result = replaced.map(|()| self.run(|| work(model)));
        let mut originals = originals.into_iter();
        model.visit_mut("", &mut |_, parameter| {
            if let Some(original) = originals.next() {
                *parameter = original;
            }
        });
        result
    }

    /// Returns the bytes of the tensors that are in use now on a device.
    pub fn used(&self, device: &Device) -> usize {
        match device {
            Device::Cpu => lock(&self.host).used_bytes,
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => self.gpu.used(),
        }
    }

    /// Returns the most bytes that tensors and free blocks had at the same time on a device. On a GPU, whose free blocks are
    /// given back when memory lacks, only the tensors count.
    pub fn peak(&self, device: &Device) -> usize {
        match device {
            Device::Cpu => lock(&self.host).most_held,
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => self.gpu.peak(),
        }
    }
}

/// Returns whether this thread makes a dry run, so that nothing is to be computed.
#[inline]
pub(crate) fn is_dry() -> bool {
    IS_DRY.get()
}

/// Returns the pool of the dry run of this thread.
pub(super) fn pool() -> Option<Arc<Mutex<Pool>>> {
    if is_dry() { CURRENT.with_borrow(|current| current.as_ref().map(|dry_run| dry_run.host.clone())) } else { None }
}

/// Calls `f` with the memory on a GPU of the dry run of this thread, if there is one.
#[cfg(feature = "cuda")]
pub(crate) fn with_gpu<R>(f: impl FnOnce(&DryPool) -> R) -> Option<R> {
    if is_dry() { CURRENT.with_borrow(|current| current.as_ref().map(|dry_run| f(&dry_run.gpu))) } else { None }
}

/// Returns a parameter of the same form as `parameter`. Those that share memory, as the parameters of an arena do, also share
/// it in `doubles`.
fn double(parameter: &Tensor, doubles: &mut HashMap<usize, Storage>) -> Result<Tensor> {
    const OP: &str = "dry run";
    let memory = parameter.storage();
    let storage = match doubles.get(&memory.address()) {
        Some(storage) => storage.clone(),
        None => {
            let (device, bytes) = (parameter.device(), memory.len());
            // The pages of a file are no memory of the process, so their double belongs to a pool that nobody asks.
            let storage = match memory {
                Storage::Cpu(buffer) if buffer.is_mapped() => DryRun::new().run(|| Storage::new(OP, &device, bytes))?,
                _ => Storage::new(OP, &device, bytes)?,
            };
            doubles.insert(memory.address(), storage.clone());
            storage
        }
    };
    let (layout, dtype, origin): (Layout, _, _) = (*parameter.layout(), parameter.dtype(), parameter.0.origin.clone());
    Ok(Tensor(Arc::new(Inner { id: TensorId::fresh(), storage, layout, dtype, origin })))
}

/// Returns the bytes of memory that the parameters of a model take on a device, without those in mapped files.
pub(crate) fn bytes_of(model: &impl Module, device: &Device) -> usize {
    let mut seen = HashMap::new();
    model.visit("", &mut |_, parameter| {
        if parameter.device() == *device {
            let bytes = match parameter.storage() {
                Storage::Cpu(buffer) => buffer.capacity(),
                #[cfg(feature = "cuda")]
                Storage::Cuda(buffer) => super::size_class(buffer.len()).unwrap_or(0),
            };
            seen.insert(parameter.storage().address(), bytes);
        }
    });
    seen.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "reserves addresses, which Miri cannot")]
    fn a_dry_run_computes_nothing_and_leaves_the_model_alone() -> Result<()> {
        let mut model = vec![Tensor::new([[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?.requires_grad()];
        let dry_run = DryRun::new();
        let used = dry_run.run_on(&mut model, |model| -> Result<usize> {
            let loss = model[0].exp()?.sum_all()?;
            let gradients = loss.backward()?;
            assert!(gradients.contains(&model[0]) && is_dry());
            Ok(dry_run.used(&Device::Cpu))
        })??;
        // The powers, their sum and the gradient. The sanitizers' blocks have no more bytes than these.
        assert!(used >= 4 * (4 + 1 + 4) && dry_run.peak(&Device::Cpu) >= used, "{used}");
        assert_eq!(dry_run.used(&Device::Cpu), 0);
        assert!(!is_dry());
        assert_eq!(model[0].to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
        Ok(())
    }
}
