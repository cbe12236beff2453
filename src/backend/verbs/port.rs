//! The ports of a device and the GIDs by which they are reached.

use std::ffi::c_int;
use std::io;
use std::mem;
use std::ptr;

use rdma_sys::{ibv_gid, ibv_port_attr, ibv_port_state, ibv_query_gid, ibv_query_port};

use super::{Context, check, failed};
use crate::error::Result;

/// `IBV_LINK_LAYER_ETHERNET`; anonymous in the header.
const LINK_LAYER_ETHERNET: u32 = 2;

/// The first bytes of an IPv4 address in IPv6's form.
const IPV4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// A port of a device (`struct ibv_port_attr`).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Port {
    /// Its number, from 1.
    pub number: u8,
    /// Whether it is up (`IBV_PORT_ACTIVE`).
    pub active: bool,
    /// Whether it is Ethernet (RoCE); InfiniBand otherwise.
    pub ethernet: bool,
    /// The largest packet, as `enum ibv_mtu` (1: 256 B … 5: 4096 B).
    pub active_mtu: u32,
    /// Its local identifier; 0 on Ethernet.
    pub lid: u16,
    /// How many GIDs it has room for.
    pub gids: u32,
}

impl Context {
    /// What a port is like now (`ibv_query_port`).
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider); a port that is not there is one.
    pub fn port(&self, number: u8) -> Result<Port> {
        // SAFETY: all zeros is a valid `ibv_port_attr`, which is plain numbers.
        let mut attr: ibv_port_attr = unsafe { mem::zeroed() };
        // SAFETY: the context is open and `attr` alive for the call. The exported function fills
        // the older, shorter form of the structure: a prefix of this one, in which all that we
        // read lies. (The inline wrapper of rdma-sys never finds a provider's newer entry point:
        // it compares a pointer with u32::MAX.)
        check("ibv_query_port", unsafe {
            ibv_query_port(self.as_raw(), number, ptr::from_mut(&mut attr).cast())
        })?;
        Ok(Port {
            number,
            active: attr.state == ibv_port_state::IBV_PORT_ACTIVE,
            ethernet: u32::from(attr.link_layer) == LINK_LAYER_ETHERNET,
            active_mtu: attr.active_mtu,
            lid: attr.lid,
            gids: u32::try_from(attr.gid_tbl_len).unwrap_or(0),
        })
    }

    /// The first port that is up.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider); that no port is up is one.
    pub fn active_port(&self) -> Result<Port> {
        for number in 1..=self.limits().ports {
            let port = self.port(number)?;
            if port.active {
                return Ok(port);
            }
        }
        Err(failed(
            "ibv_query_port",
            io::ErrorKind::NetworkDown,
            format!("no port of {} is up", self.name()),
        ))
    }

    /// The GID with that index (`ibv_query_gid`); all zeros where there is none.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn gid(&self, port: u8, index: u32) -> Result<[u8; 16]> {
        let mut gid = ibv_gid { raw: [0; 16] };
        let index = c_int::try_from(index).unwrap_or(c_int::MAX);
        // SAFETY: the context is open and `gid` alive for the call.
        check("ibv_query_gid", unsafe {
            ibv_query_gid(self.as_raw(), port, index, &mut gid)
        })?;
        // SAFETY: all bit patterns of both forms are valid, and it was initialised above.
        Ok(unsafe { gid.raw })
    }

    /// The index of the GID that suits a connection best: on RoCE one of version 2 that is an IPv4
    /// address, else one that is an IPv4 address, else one of version 2, else the first.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider); a port without any GID is one.
    pub fn best_gid(&self, port: &Port) -> Result<u32> {
        let mut best = None;
        for index in 0..port.gids {
            let Ok(gid) = self.gid(port.number, index) else {
                continue;
            };
            if gid == [0; 16] {
                continue;
            }
            let rank = 2 * u8::from(gid[..12] == IPV4_MAPPED)
                + u8::from(self.gid_is_roce_v2(port.number, index));
            if best.is_none_or(|(top, _)| rank > top) {
                best = Some((rank, index));
            }
            if rank == 3 {
                break;
            }
        }
        best.map(|(_, index)| index).ok_or_else(|| {
            failed(
                "ibv_query_gid",
                io::ErrorKind::AddrNotAvailable,
                format!("port {} of {} has no GID", port.number, self.name()),
            )
        })
    }

    /// The type of a GID is in sysfs; the verbs call for it is not in rdma-sys.
    fn gid_is_roce_v2(&self, port: u8, index: u32) -> bool {
        let name = self.name();
        let path = format!("/sys/class/infiniband/{name}/ports/{port}/gid_attrs/types/{index}");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "RoCE v2")
    }
}
