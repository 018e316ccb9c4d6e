//! NCCL, NVIDIA's library for exchanges between GPUs: the functions that are called here, and a communicator.
//!
//! The library is loaded when a communicator is first made, by the name that its packages give it. It is asked not to block: no
//! call waits for another rank, so that a caller can poll for that and notice that the other one is gone.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cudarc::driver::result;
use libloading::Library;

use super::device::CudaDevice;
use super::driver::{Pointer, check};
use super::exchange::GpuExchange;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "libnccl.so.2";
const OP: &str = "NCCL";

/// The first version with all that is used here, as `ncclGetVersion` returns it. Version 2.14 is the first that need not block.
const OLDEST: (c_int, &str) = (21400, "2.14");

/// The longest time that closing a communicator waits for other ranks.
const CLOSING: Duration = Duration::from_secs(5);

/// `ncclResult_t`.
type Answer = c_int;
const SUCCESS: Answer = 0;
const IN_PROGRESS: Answer = 7;

/// `ncclUint8`: NCCL only moves bytes here.
const BYTES: c_int = 1;

/// `ncclComm_t`.
type Handle = *mut c_void;
/// `cudaStream_t`, which is a `CUstream`.
type StreamHandle = *mut c_void;

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; 128]);

/// The first fields of `ncclConfig_t`, as of version 2.14. NCCL reads the size, and takes its defaults for the fields that follow.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

/// Declares the functions of the library, and how they are loaded.
macro_rules! functions {
    ($($field:ident = $name:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// Keeps the functions loaded.
            _library: Library,
        }

        impl Functions {
            /// Loads all functions, or returns the name of the first that is missing.
            fn of(library: Library) -> std::result::Result<Functions, &'static str> {
                // SAFETY: these are the declarations of nccl.h, and `_library` keeps the functions loaded.
                $(let $field = *unsafe { library.get($name.as_bytes()) }.map_err(|_| $name)?;)*
                Ok(Functions { $($field,)* _library: library })
            }
        }
    };
}

functions! {
    version = "ncclGetVersion": fn(*mut c_int) -> Answer;
    unique_id = "ncclGetUniqueId": fn(*mut UniqueId) -> Answer;
    join = "ncclCommInitRankConfig": fn(*mut Handle, c_int, UniqueId, c_int, *const Config) -> Answer;
    state = "ncclCommGetAsyncError": fn(Handle, *mut Answer) -> Answer;
    error_string = "ncclGetErrorString": fn(Answer) -> *const c_char;
    last_error = "ncclGetLastError": fn(Handle) -> *const c_char;
    group_start = "ncclGroupStart": fn() -> Answer;
    group_end = "ncclGroupEnd": fn() -> Answer;
    send = "ncclSend": fn(*const c_void, usize, c_int, c_int, Handle, StreamHandle) -> Answer;
    receive = "ncclRecv": fn(*mut c_void, usize, c_int, c_int, Handle, StreamHandle) -> Answer;
    all_gather = "ncclAllGather": fn(*const c_void, *mut c_void, usize, c_int, Handle, StreamHandle) -> Answer;
    broadcast = "ncclBroadcast": fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, StreamHandle) -> Answer;
    finalize = "ncclCommFinalize": fn(Handle) -> Answer;
    destroy = "ncclCommDestroy": fn(Handle) -> Answer;
    abort = "ncclCommAbort": fn(Handle) -> Answer;
}

/// Returns the library, loading it on the first call.
fn functions() -> Result<&'static Functions> {
    static LOADED: OnceLock<std::result::Result<Functions, String>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(|why| Error::device(OP, why.clone()))
}

fn load() -> std::result::Result<Functions, String> {
    // SAFETY: loading NCCL runs no code but its own initialisers.
    let library = unsafe { Library::new(NAME) }.map_err(|_| {
        format!(
            "{NAME} was not found: install NVIDIA's package libnccl2, or the wheel nvidia-nccl-cu13 and add its folder to \
             LD_LIBRARY_PATH"
        )
    })?;
    let too_old = |found: String| format!("{NAME} {found}: install NCCL {} or newer", OLDEST.1);
    let functions = Functions::of(library).map_err(|name| too_old(format!("has no function {name}")))?;
    let mut version = 0;
    // SAFETY: it only writes to the pointer.
    let answer = unsafe { (functions.version)(&mut version) };
    match answer == SUCCESS && version >= OLDEST.0 {
        true => Ok(functions),
        false => Err(too_old(format!("is version {}.{}", version / 10000, version % 10000 / 100))),
    }
}

/// A rank of GPUs that exchange their memory over NCCL: one process, one GPU.
///
/// No call waits for other ranks. After each, call [`is_ready`](Nccl::is_ready) until it returns true; then the exchange is
/// enqueued, and [`GpuExchange::is_done`] tells when it is over. All ranks must make the same calls in the same order.
pub struct Nccl {
    functions: &'static Functions,
    device: CudaDevice,
    handle: Handle,
    rank: usize,
    ranks: usize,
}

// SAFETY: a communicator may be used from any thread, by one at a time: `Nccl` is not `Sync`.
unsafe impl Send for Nccl {}

impl Nccl {
    /// Returns a new identity for a communicator, which one rank must send to all others: 128 bytes.
    ///
    /// # Errors
    /// Returns an error if the library is missing or too old, or finds no network.
    pub fn unique_id() -> Result<Vec<u8>> {
        let functions = functions()?;
        let mut id = UniqueId([0; 128]);
        // SAFETY: it only writes to the pointer.
        let answer = unsafe { (functions.unique_id)(&mut id) };
        check_answer(functions, null_mut(), "ncclGetUniqueId", answer)?;
        Ok(id.0.to_vec())
    }

    /// Begins to join the communicator `id` as `rank` of `ranks`, with the GPU `device`.
    ///
    /// # Errors
    /// Returns an error if the library is missing or too old, `device` is the CPU, or NCCL refuses.
    pub fn join(device: &Device, id: &[u8], rank: usize, ranks: usize) -> Result<Nccl> {
        let Device::Cuda(device) = device else { return Err(Error::invalid(OP, "the device is the CPU, not a GPU")) };
        let functions = functions()?;
        let id = UniqueId(id.try_into().map_err(|_| Error::invalid(OP, "an identity has 128 bytes"))?);
        device.0.stream.enter(OP)?;
        let config = Config { size: size_of::<Config>(), magic: 0xcafe_beef, version: OLDEST.0 as c_uint, blocking: 0 };
        let mut handle = null_mut();
        // SAFETY: `Config` has the layout of the first fields of `ncclConfig_t`, and the device's context is current.
        let answer = unsafe { (functions.join)(&mut handle, ranks as c_int, id, rank as c_int, &config) };
        check_answer(functions, handle, "ncclCommInitRankConfig", answer)?;
        Ok(Nccl { functions, device: device.clone(), handle, rank, ranks })
    }

    /// Returns whether the last call is complete, so that the next one may follow.
    ///
    /// # Errors
    /// Returns an error if an exchange has failed, now or earlier.
    pub fn is_ready(&self) -> Result<bool> {
        self.device.0.stream.enter(OP)?;
        let mut state = SUCCESS;
        // SAFETY: the handle is that of this communicator.
        let answer = unsafe { (self.functions.state)(self.handle, &mut state) };
        self.check("ncclCommGetAsyncError", answer)?;
        self.check("an exchange", state)?;
        Ok(state != IN_PROGRESS)
    }

    /// Sends a part of `send` to each rank and receives a part from each, in rank order. The parts have `sent[rank]` and
    /// `received[rank]` bytes. Like all exchanges it comes after what `exchange` was given before.
    ///
    /// # Errors
    /// Returns an error if lengths or devices do not fit, or if NCCL refuses.
    pub fn all_to_all(
        &self,
        exchange: &GpuExchange,
        (send, sent): (&Tensor, &[usize]),
        (receive, received): (&Tensor, &[usize]),
    ) -> Result<()> {
        let (from, to) = (self.parts(exchange, send, sent)?, self.parts(exchange, receive, received)?);
        let stream = exchange.enter(OP)?;
        let (own, own_to) = (from[self.rank], to[self.rank]);
        if own.1 != own_to.1 {
            return Err(Error::invalid(
                OP,
                format!("this rank sends itself {} bytes and receives {}", own.1, own_to.1),
            ));
        }
        // SAFETY: `parts` checked that both lie in tensors of this device.
        check(OP, "cuMemcpyDtoD", unsafe { result::memcpy_dtod_async(own_to.0, own.0, own.1, stream) })?;
        self.in_group(|nccl| {
            for peer in (0..nccl.ranks).filter(|&peer| peer != nccl.rank) {
                let (((from, sent), (to, received)), other) = ((from[peer], to[peer]), peer as c_int);
                if sent > 0 {
                    // SAFETY: `parts` checked that the bytes are of a tensor, which nothing else may write meanwhile.
                    let answer =
                        unsafe { (nccl.functions.send)(from as _, sent, BYTES, other, nccl.handle, stream.cast()) };
                    nccl.check("ncclSend", answer)?;
                }
                if received > 0 {
                    // SAFETY: as above.
                    let answer = unsafe {
                        (nccl.functions.receive)(to as _, received, BYTES, other, nccl.handle, stream.cast())
                    };
                    nccl.check("ncclRecv", answer)?;
                }
            }
            Ok(())
        })
    }

    /// Completes tensors, of each of which every rank has its own part, in rank order, of so many bytes.
    ///
    /// # Errors
    /// Returns an error if lengths or devices do not fit, or if NCCL refuses.
    pub fn all_gather(&self, exchange: &GpuExchange, all: &[(Tensor, Vec<usize>)]) -> Result<()> {
        let parts: Vec<_> =
            all.iter().map(|(tensor, lengths)| self.parts(exchange, tensor, lengths)).collect::<Result<_>>()?;
        let stream = exchange.enter(OP)?;
        self.in_group(|nccl| parts.iter().try_for_each(|parts| nccl.gather_parts(parts, stream.cast())))
    }

    /// Gathers the parts of a tensor.
    fn gather_parts(&self, parts: &[(Pointer, usize)], stream: StreamHandle) -> Result<()> {
        let (start, length) = parts[0];
        // Parts of one length are one collective, for which NCCL has better ways than for one per part.
        if parts.iter().all(|&(_, other)| other == length) {
            let own = parts[self.rank].0;
            // SAFETY: `parts` are of a tensor on this device, which nothing else may write meanwhile.
            let answer =
                unsafe { (self.functions.all_gather)(own as _, start as _, length, BYTES, self.handle, stream) };
            return self.check("ncclAllGather", answer);
        }
        for (root, &(part, length)) in parts.iter().enumerate().filter(|(_, (_, length))| *length > 0) {
            let root = root as c_int;
            // SAFETY: as above.
            let answer =
                unsafe { (self.functions.broadcast)(part as _, part as _, length, BYTES, root, self.handle, stream) };
            self.check("ncclBroadcast", answer)?;
        }
        Ok(())
    }

    /// Makes one exchange of the calls of `calls`.
    fn in_group(&self, calls: impl FnOnce(&Nccl) -> Result<()>) -> Result<()> {
        // SAFETY: these two take no arguments, and every start has its end.
        self.check("ncclGroupStart", unsafe { (self.functions.group_start)() })?;
        let called = calls(self);
        // SAFETY: as above.
        let ended = unsafe { (self.functions.group_end)() };
        called.and_then(|()| self.check("ncclGroupEnd", ended))
    }

    /// Returns the address and length of each rank's part of a tensor.
    fn parts(&self, exchange: &GpuExchange, tensor: &Tensor, lengths: &[usize]) -> Result<Vec<(Pointer, usize)>> {
        let (start, bytes) = exchange.place(OP, tensor)?;
        if lengths.len() != self.ranks || lengths.iter().sum::<usize>() != bytes {
            let reason = format!("{} parts of a tensor of {bytes} bytes for {} ranks", lengths.len(), self.ranks);
            return Err(Error::invalid(OP, reason));
        }
        let mut next = start;
        let mut part = |&length: &usize| {
            let start = next;
            next += length as u64;
            (start, length)
        };
        Ok(lengths.iter().map(&mut part).collect())
    }

    fn check(&self, call: &str, answer: Answer) -> Result<()> {
        check_answer(self.functions, self.handle, call, answer)
    }
}

/// Turns an answer of NCCL into ours.
fn check_answer(functions: &Functions, handle: Handle, call: &str, answer: Answer) -> Result<()> {
    if answer == SUCCESS || answer == IN_PROGRESS {
        return Ok(());
    }
    let text = |text: *const c_char| match text.is_null() {
        true => String::new(),
        // SAFETY: NCCL returns a text that ends with a zero, which lives at least until its next call.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().replace('\n', " "),
    };
    // SAFETY: it only looks up a text.
    let what = text(unsafe { (functions.error_string)(answer) });
    // SAFETY: it only reads; the handle is null or that of a communicator.
    let last = text(unsafe { (functions.last_error)(handle) });
    let last = if last.is_empty() { last } else { format!(" ({last})") };
    Err(Error::device(OP, format!("{call}: {what}{last}; NCCL_DEBUG=WARN tells more")))
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if self.device.0.stream.enter(OP).is_err() {
            return;
        }
        let start = Instant::now();
        // SAFETY: the handle belongs to this value, here and below.
        let closing = unsafe { (self.functions.finalize)(self.handle) };
        let is_closed = self.check("ncclCommFinalize", closing).is_ok()
            && loop {
                match self.is_ready() {
                    Ok(false) if start.elapsed() < CLOSING => std::thread::sleep(Duration::from_micros(100)),
                    answer => break matches!(answer, Ok(true)),
                }
            };
        // SAFETY: as above; the handle is not used any more.
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "makes one of several calls")]
        unsafe {
            if is_closed { (self.functions.destroy)(self.handle) } else { (self.functions.abort)(self.handle) }
        };
    }
}
