//! Connections through the connection manager.

use super::*;

/// The connection tests share the machine's ports, and time out on a slow one when all run at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn two_threads_connect_by_address() {
    let _context = device();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let listener = Listener::bind(address(0)).unwrap();
    let addr = listener.local_addr().unwrap();
    assert_ne!(addr.port(), 0);
    let config = |data: &[u8]| Config {
        private_data: data.to_vec(),
        channels: true,
        ..Config::default()
    };
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let request = listener.request(Some(PATIENCE)).unwrap().unwrap();
            assert!(request.private_data().starts_with(b"client"));
            let mut pending = request.prepare(&config(b"")).unwrap();
            let mem = Mem::new(pending.pd(), ALL);
            recv(pending.qp(), 1, &[mem.sge(0, 64)]).unwrap();
            // The accept carries where the peer may write.
            let remote = mem.remote(1024);
            pending.private_data = remote.addr.to_be_bytes().to_vec();
            pending.private_data.extend(remote.rkey.to_be_bytes());
            let connection = pending.establish(PATIENCE).unwrap();
            assert_eq!(connection.link.local_addr().unwrap().ip(), addr.ip());
            let mut out = [WorkCompletion::EMPTY; 1];
            assert_eq!(
                connection.recv_cq.wait(&mut out, Some(PATIENCE)).unwrap(),
                1
            );
            assert_eq!((out[0].wr_id, out[0].imm), (1, Some(42)));
            assert_eq!(mem.bytes(4), b"sent");
            assert_eq!(&mem.bytes(1029)[1024..], b"wrote");
            assert!(connection.link.wait_disconnected(Some(PATIENCE)).unwrap());
            assert!(connection.disconnected().unwrap());
        });
        let client = Connection::connect(addr, &config(b"client"), PATIENCE).unwrap();
        assert_eq!(client.link.peer_addr(), Some(addr));
        assert!(!client.disconnected().unwrap());
        let data = client.link.private_data();
        let remote = RemoteAddr {
            addr: u64::from_be_bytes(data[..8].try_into().unwrap()),
            rkey: u32::from_be_bytes(data[8..12].try_into().unwrap()),
        };
        let mem = Mem::new(&client.pd, Access::default());
        mem.fill(b"wrotesent0123456");
        let write = SendOp::Write { remote, imm: None };
        post(&client.qp, 1, &[mem.sge(0, 5)], write, SIGNALED).unwrap();
        let send = SendOp::Send { imm: Some(42) };
        post(&client.qp, 2, &[mem.sge(5, 4)], send, SIGNALED).unwrap();
        // READ and atomics, too: the depths were agreed.
        let read = SendOp::Read { remote };
        post(&client.qp, 3, &[mem.sge(64, 8)], read, SIGNALED).unwrap();
        let add = SendOp::FetchAdd {
            remote: RemoteAddr {
                addr: remote.addr + 8,
                ..remote
            },
            add: 1,
        };
        post(&client.qp, 4, &[mem.sge(72, 8)], add, SIGNALED).unwrap();
        for wr_id in 1..=4 {
            let done = next(&client.send_cq);
            assert_eq!((done.wr_id, done.status), (wr_id, WcStatus::Success));
        }
        assert_eq!(&mem.bytes(69)[64..], b"wrote");
        client.link.disconnect().unwrap();
        server.join().unwrap();
        assert!(client.link.wait_disconnected(Some(PATIENCE)).unwrap());
    });
    assert_no_leak();
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_listener_accepts_several_on_one_protection_domain() {
    let _context = device();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let listener = Listener::bind(address(0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let context = cm::context(addr.ip()).unwrap();
    let pd = context.alloc_pd().unwrap();
    let cq = context.create_cq(256).unwrap();
    let shared = Config {
        pd: Some(Arc::clone(&pd)),
        send_cq: Some(Arc::clone(&cq)),
        recv_cq: Some(Arc::clone(&cq)),
        ..Config::default()
    };
    let mem = Mem::new(&pd, ALL);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let client = Connection::connect(addr, &Config::default(), PATIENCE).unwrap();
                assert!(client.link.wait_disconnected(Some(PATIENCE)).unwrap());
            });
        }
        let servers: Vec<Connection> = (0..3)
            .map(|_| listener.accept(&shared, Some(PATIENCE)).unwrap())
            .collect();
        for server in &servers {
            assert_eq!(server.pd.as_raw(), pd.as_raw());
        }
        drop(servers); // dropping says goodbye
    });
    drop((context, pd, listener, shared, cq));
    drop(mem);
    assert_no_leak();

    // A protection domain of another context is refused.
    let own = Context::open(None).unwrap().alloc_pd().unwrap();
    let listener = Listener::bind(address(0)).unwrap();
    let config = Config {
        pd: Some(own),
        ..Config::default()
    };
    let result = Pending::resolve(listener.local_addr().unwrap(), &config, PATIENCE);
    assert_eq!(provider(result.unwrap_err()).1, io::ErrorKind::InvalidInput);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn connecting_where_nobody_listens_is_an_error_of_one_line() {
    let _context = device();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let connect = |addr, timeout| {
        let start = Instant::now();
        let error = Connection::connect(addr, &Config::default(), timeout).unwrap_err();
        println!("{error} ({:?})", start.elapsed());
        assert!(!error.to_string().contains('\n'));
        provider(error)
    };
    let refused = ("rdma_connect", io::ErrorKind::ConnectionRefused);
    assert_eq!(connect(address(19_999), PATIENCE), refused);

    // No machine has this address, and no time to find out.
    let (call, kind) = connect("10.0.0.77:1".parse().unwrap(), Duration::from_millis(500));
    assert_eq!(call, "rdma_resolve_addr");
    assert!(
        matches!(
            kind,
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable
        ),
        "{kind:?}"
    );

    // A listener that is too slow, and one that says no.
    let listener = Listener::bind(address(0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let (_, kind) = connect(addr, Duration::from_millis(700));
    assert_eq!(kind, io::ErrorKind::TimedOut);
    // Its request is there, but whoever takes it up finds the sender gone.
    let stale = listener.accept(&Config::default(), Some(Duration::from_secs(3)));
    let stale = stale.unwrap_err();
    println!("{stale}");
    assert_eq!(provider(stale).1, io::ErrorKind::ConnectionAborted);
    thread::scope(|scope| {
        scope.spawn(|| {
            let request = listener.request(Some(PATIENCE)).unwrap().unwrap();
            request.reject(b"no").unwrap();
        });
        assert_eq!(connect(addr, PATIENCE), refused);
    });
    assert!(listener.request(Some(Duration::ZERO)).unwrap().is_none());
    let result = listener.accept(&Config::default(), Some(Duration::from_millis(20)));
    assert_eq!(provider(result.unwrap_err()).1, io::ErrorKind::TimedOut);

    let too_long = Config {
        private_data: vec![1; cm::MAX_CONNECT_DATA + 1],
        ..Config::default()
    };
    let result = Connection::connect(addr, &too_long, PATIENCE);
    assert_eq!(provider(result.unwrap_err()).1, io::ErrorKind::InvalidInput);
    assert!(Listener::bind("192.0.2.1:0".parse().unwrap()).is_err());
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn the_device_that_leads_to_a_peer_need_not_have_its_address() {
    let context = device();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Somebody else's, of whom the way is known.
    let neighbour = "neigh replace 10.0.0.77 lladdr 02:00:00:00:00:77 dev veth0";
    let mut ip = std::process::Command::new("/usr/sbin/ip");
    assert!(ip.args(neighbour.split(' ')).status().unwrap().success());
    let peer: SocketAddr = "10.0.0.77:7471".parse().unwrap();
    let (call, _) = provider(cm::context(peer.ip()).unwrap_err());
    assert_eq!(call, "rdma_bind_addr");
    let to_peer = cm::context_to(peer, PATIENCE).unwrap();
    assert_eq!(to_peer.name(), context.name());
}
