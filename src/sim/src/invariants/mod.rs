//! What must hold, one file an invariant. Each is told what happens and answers at once whether that may be.

pub mod accuracy;
pub mod acknowledged;
pub mod agreement;
pub mod commit;
pub mod durability;
pub mod in_sync;
pub mod linearizable;
pub mod liveness;
pub mod one_leader;
pub mod one_master;
pub mod one_owner;

pub use accuracy::Accuracy;
pub use acknowledged::Acknowledged;
pub use agreement::Agreement;
pub use commit::Commit;
pub use durability::Durability;
pub use in_sync::InSync;
pub use linearizable::Linearizable;
pub use liveness::Liveness;
pub use one_leader::OneLeader;
pub use one_master::OneMaster;
pub use one_owner::OneOwner;

/// Ok, or what is wrong.
pub type Verdict = Result<(), String>;

/// All invariants of a run that are checked step by step.
#[derive(Debug, Default)]
pub struct Invariants {
    pub one_leader: OneLeader,
    pub commit: Commit,
    pub agreement: Agreement,
    pub durability: Durability,
    pub linearizable: Linearizable,
}
