//! Devices, registrations, protection domains, and the order in which things go.

use super::*;

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn devices_are_listed_and_an_unknown_one_is_named_with_the_list() {
    let context = device();
    let found = devices().unwrap();
    assert!(found.iter().any(|device| device.name == context.name()));
    match Context::open(Some("no_such_device")) {
        Err(Error::UnknownDevice { name, known }) => {
            assert_eq!(name, "no_such_device");
            assert!(known.contains(context.name()));
        }
        other => panic!("{other:?}"),
    }
    let again = Context::open(Some(context.name())).unwrap();
    let limits = again.limits();
    println!("{found:?} {limits:?}");
    assert!(limits.max_mr_size >= 4096 && limits.max_qp_wr > 0 && limits.max_sge > 0);
    assert_ne!(limits.atomic_cap, AtomicCap::None);
    let port = context.active_port().unwrap();
    let gid = context.best_gid(&port).unwrap();
    println!("{port:?} gid {gid}: {:02x?}", context.gid(port.number, gid));
    assert!(context.port(200).is_err());
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn memory_is_registered_and_deregistered() {
    let context = device();
    let pd = context.alloc_pd().unwrap();
    let keys: Vec<u32> = (0..20)
        .map(|_| Mem::new(&pd, Access::default()))
        .collect::<Vec<_>>()
        .iter()
        .map(|mem| mem.registered.lkey)
        .collect();
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "a key twice: {keys:?}");
    }
    // A second end of a registration is no error, and does nothing.
    let mut mem = Mem::new(&pd, ALL);
    mem.registered.handle.deregister().unwrap();
    mem.registered.handle.deregister().unwrap();
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn bad_registrations_are_refused() {
    let context = device();
    let pd = context.alloc_pd().unwrap();
    let invalid = |length, access| {
        let error = Mem::try_new(&pd, length, access).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    };
    invalid(0, Access::default());
    invalid(4096, Access::REMOTE_WRITE);
    invalid(4096, Access::REMOTE_ATOMIC);
    invalid(4096, Access::from_bits_retain(1 << 5));
    // What only the kernel can see: nothing is mapped there.
    let nowhere = NonNull::new(0x10_0000 as *mut u8).unwrap();
    // SAFETY: broken on purpose: the provider must refuse.
    let result = unsafe { pd.register(nowhere, 4096, Access::default()) };
    assert_eq!(result.err().unwrap().raw_os_error(), Some(libc::EFAULT));
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn things_are_destroyed_in_order_whatever_is_dropped_first() {
    let context = device();
    let Pair {
        a,
        b,
        a_cq,
        b_cq,
        pd,
    } = Pair::new(&context);
    let mem = Mem::new(&pd, ALL);
    drop(context);
    drop(pd);
    drop((a_cq, b_cq));
    assert_eq!(a.state().unwrap(), QpState::Rts);
    a.destroy().unwrap();
    drop(b);
    drop(mem);
    assert_no_leak();
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_protection_domain_of_the_caller_is_adopted_and_left_alone() {
    let context = device();
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    // SAFETY: null is allowed (VPD-1).
    let null = unsafe { ProtectionDomain::adopt(std::ptr::null_mut(), Box::new(())) };
    assert_eq!(provider(null.unwrap_err()).1, io::ErrorKind::InvalidInput);

    // SAFETY: the context is open.
    let raw = unsafe { sys::ibv_alloc_pd(context.as_raw()) };
    assert!(!raw.is_null());
    let dropped = Arc::new(AtomicBool::new(false));
    let keepalive = Box::new((Flag(Arc::clone(&dropped)), context.clone()));
    // SAFETY: alive until the end of the test.
    let pd = unsafe { ProtectionDomain::adopt(raw, keepalive) }.unwrap();
    assert_eq!(pd.as_raw(), raw);
    let mem = Mem::new(&pd, ALL);
    // Queues can be made through it, too.
    let cq = pd.context().create_cq(16).unwrap();
    let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
    drop((pd, cq));
    assert!(!dropped.load(Ordering::SeqCst));
    drop(qp);
    assert!(!dropped.load(Ordering::SeqCst));
    drop(mem);
    assert!(dropped.load(Ordering::SeqCst));
    // Nobody has deallocated it.
    // SAFETY: allocated above, and all registrations are gone.
    assert_eq!(unsafe { sys::ibv_dealloc_pd(raw) }, 0);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_registration_that_is_dropped_leaks_and_is_counted() {
    let context = device();
    let pd = context.alloc_pd().unwrap();
    let layout = Layout::from_size_align(4096, 4096).unwrap();
    // SAFETY: not empty; leaked with its registration.
    let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
    // SAFETY: as above.
    let registered = unsafe { pd.register(ptr, 4096, ALL) }.unwrap();
    assert_eq!(leaked(), 0);
    drop(registered);
    assert_eq!(leaked(), 1);
    // The registration keeps all that it stands on.
    drop((pd, context));
    assert_eq!(leaked(), 1);
}
