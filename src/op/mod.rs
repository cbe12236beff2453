//! Operations in flight.
