//! Registered bytes, without anybody who watches over them.

use std::alloc::{self, Layout};
use std::io;
use std::ptr::NonNull;
use std::slice;

use rdma_mr::backend::verbs::sys::{ibv_access_flags, ibv_dereg_mr, ibv_mr, ibv_reg_mr};
use rdma_mr::work::Sge;

use crate::Failure;
use crate::queues::Device;

/// Registered bytes.
pub struct Memory {
    addr: NonNull<u8>,
    layout: Layout,
    mr: NonNull<ibv_mr>,
}

impl Memory {
    pub fn new(device: &Device, length: usize) -> Result<Self, Failure> {
        let layout = Layout::from_size_align(length, 4096)?;
        // SAFETY: the length is not 0.
        let addr = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or("no memory")?;
        let rights = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE
            | ibv_access_flags::IBV_ACCESS_REMOTE_READ
            | ibv_access_flags::IBV_ACCESS_REMOTE_WRITE
            | ibv_access_flags::IBV_ACCESS_REMOTE_ATOMIC;
        // SAFETY: the protection domain is alive; the memory outlives the registration.
        let mr = unsafe { ibv_reg_mr(device.pd(), addr.as_ptr().cast(), length, rights.0 as i32) };
        let mr = NonNull::new(mr).ok_or_else(io::Error::last_os_error)?;
        Ok(Memory { addr, layout, mr })
    }

    /// Called for bytes alone that no request has that is under way.
    pub fn bytes(&mut self, at: usize, length: usize) -> &mut [u8] {
        assert!(at + length <= self.layout.size());
        // SAFETY: that much is allocated; the device is done with the bytes, as the caller knows.
        unsafe { slice::from_raw_parts_mut(self.addr.as_ptr().add(at), length) }
    }

    pub fn sge(&self, at: usize, length: usize) -> Sge {
        // SAFETY: the registration is alive.
        let lkey = unsafe { self.mr.as_ref() }.lkey;
        let (addr, length) = (self.addr.as_ptr() as u64 + at as u64, length as u32);
        Sge { addr, length, lkey }
    }

    pub fn rkey(&self) -> u32 {
        // SAFETY: the registration is alive.
        unsafe { self.mr.as_ref() }.rkey
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: registered in `new`; the queue pairs are gone.
        if unsafe { ibv_dereg_mr(self.mr.as_ptr()) } == 0 {
            // SAFETY: allocated in `new`.
            unsafe { alloc::dealloc(self.addr.as_ptr(), self.layout) };
        }
    }
}
