//! The one that the others are measured against: registered memory, pointers, and the bare queues.

use std::alloc::{self, Layout};
use std::marker::PhantomData;
use std::ptr::NonNull;

use rdma_mr::Access;
use rdma_mr::op::Endpoint;
use rdma_mr::registration::{Deregister, Registrar};
use rdma_mr::work::Sge;

use crate::contest::{NUMBER, Pending, Side, check};
use crate::wire::{Bare, Wire};
use crate::{Failure, Options};

/// Bytes that a NIC may use, and nobody who watches over them.
struct Memory {
    addr: NonNull<u8>,
    layout: Layout,
    lkey: u32,
    registration: Box<dyn Deregister>,
}

impl Memory {
    /// At the start of a page, as regions are.
    fn new(pd: &impl Registrar, length: usize) -> Result<Self, Failure> {
        let layout = Layout::from_size_align(length, 4096)?;
        // SAFETY: the length is not 0.
        let addr = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or("no memory")?;
        // SAFETY: REG-4: freed by the drop only, after the deregistration.
        match unsafe { pd.register(addr, length, Access::LOCAL_WRITE) } {
            Ok(registered) => Ok(Memory {
                addr,
                layout,
                lkey: registered.lkey,
                registration: registered.handle,
            }),
            Err(error) => {
                // SAFETY: allocated above; REG-3: nothing is registered.
                unsafe { alloc::dealloc(addr.as_ptr(), layout) };
                Err(error.into())
            }
        }
    }

    fn sge(&self) -> Sge {
        Sge {
            addr: self.addr.as_ptr() as u64,
            length: self.layout.size() as u32,
            lkey: self.lkey,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Refused, the bytes are the NIC's still.
        if self.registration.deregister().is_ok() {
            // SAFETY: allocated in `new`; DEREG-1: the NIC touches it no more.
            unsafe { alloc::dealloc(self.addr.as_ptr(), self.layout) };
        }
    }
}

const SEND: u64 = 1;
const RECV: u64 = 2;

/// Uses the queues as `B` does.
pub struct Plain<B> {
    from: Memory,
    to: Memory,
    inline: bool,
    pending: Pending,
    bare: PhantomData<B>,
}

impl<B> Plain<B> {
    pub fn new<W: Wire>(wire: &W, options: &Options) -> Result<Self, Failure> {
        Ok(Plain {
            from: Memory::new(&**wire.pd(), options.size)?,
            to: Memory::new(&**wire.pd(), options.size)?,
            inline: options.inline,
            pending: Pending::default(),
            bare: PhantomData,
        })
    }
}

impl<W: Wire, B: Bare<Qp = W::Qp>> Side<W> for Plain<B> {
    #[inline]
    fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }

    #[inline]
    fn expect(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure> {
        // SAFETY: POST-2: `check` looks at the bytes after the completion, and the memory is freed
        // after its deregistration; POST-3: a small number.
        unsafe { B::post_recv(endpoint.qp(), RECV, self.to.sge()) }
    }

    #[inline]
    fn send(&mut self, endpoint: &mut Endpoint<W::Qp>, number: u64) -> Result<(), Failure> {
        let bytes = self.from.addr.cast::<[u8; NUMBER]>();
        // SAFETY: at least that long; nobody else has the bytes, since the last send is over.
        unsafe { bytes.write(number.to_ne_bytes()) };
        // SAFETY: POST-1: nobody writes the bytes until the completion has come; POST-3: a small
        // number.
        unsafe { B::post_send(endpoint.qp(), SEND, self.from.sge(), self.inline) }
    }

    #[inline]
    fn poll(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure> {
        B::poll(endpoint.qp(), |wr_id| match wr_id {
            SEND => self.pending.send = false,
            _ => self.pending.recv = false,
        })
    }

    #[inline]
    fn check(&mut self, number: u64) -> Result<(), Failure> {
        // SAFETY: at least that long; the receive is over.
        let bytes = unsafe { self.to.addr.cast::<[u8; NUMBER]>().read() };
        check(&bytes, number)
    }
}
