//! The one word.
#[derive(Debug, Clone, Copy)]
/// State.
pub struct GateState;
impl std::fmt::Display for GateState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "?")
    }
}
