//! What a program can say.

use arbitrary::Arbitrary;

/// What is done.
#[derive(Arbitrary, Debug)]
pub struct Program {
    pub(super) grants: [Grant; 3],
    pub(super) steps: Vec<Step>,
}

/// A registration.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Grant {
    pub start: u8,
    pub length: u8,
    pub access: u8,
    pub second: bool,
}

#[derive(Arbitrary, Debug)]
pub enum Step {
    Register(Grant),
    Deregister(u8),
    Send {
        op: Op,
        flags: u8,
        elements: [Option<Element>; 4],
    },
    Recv([Option<Element>; 4]),
    Nic,
    Fail {
        second: bool,
    },
    Retries(u8),
}

/// An element as anybody may write one.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Element {
    pub addr: Addr,
    pub length: Length,
}

/// An address and a key. Most are near what one registration names.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Addr {
    pub registration: u8,
    pub offset: i8,
    pub twist: Twist,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Twist {
    None,
    Aligned,
    /// So that it ends where the registration does, or near that.
    End(i8),
    OtherKey,
    KeyBit(u8),
    Key(u32),
    Addr(u64),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Length {
    /// To the end of the registration, or near that.
    End(i8),
    Short(u8),
    Eight,
    Long(u32),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Op {
    Send(Option<u32>),
    Write(Addr, Option<u32>),
    Read(Addr),
    Add(Addr, u64),
    Swap(Addr, u64, u64),
}
