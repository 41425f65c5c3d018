//! Which systemd units a process is in, read from its cgroup. Pure.
//!
//! systemd makes a group for each unit below those of its slices (`systemd.slice(5)`), and a process of a user's
//! manager is in that manager's unit as well: `/user.slice/user-1000.slice/user@1000.service/app.slice/a.service`.
//! What lies below a unit's group belongs to that unit, which may have made it and named it as it liked: so
//! only the first name below the slices counts.

use std::fmt;

use crate::types::{CgroupPath, UnitName};

/// The units that a process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// Of the system's manager.
    pub system: UnitName,
    /// Of a user's manager: whose, and which.
    pub user: Option<(u32, UnitName)>,
}

impl Units {
    /// `None`: the group belongs to no service or scope.
    pub(super) fn of(cgroup: &CgroupPath) -> Option<Self> {
        let mut steps = cgroup.steps().skip_while(|step| is_slice(step));
        let system = unit(steps.next()?)?;
        let within = steps.find(|step| !is_slice(step)).and_then(unit);
        let user = user_manager(&system).zip(within);
        Some(Self { system, user })
    }

    /// Whether it is in the unit of that name. One of a user's manager counts only if that is the manager of
    /// `own_uid`: every user can name a unit of his own like one of the system.
    pub fn include(&self, name: &UnitName, own_uid: u32) -> bool {
        let own = |(uid, unit): &(u32, UnitName)| *uid == own_uid && unit == name;
        self.system == *name || self.user.as_ref().is_some_and(own)
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.system.fmt(f)?;
        self.user.as_ref().map_or(Ok(()), |(_, unit)| write!(f, ", in it {unit}"))
    }
}

fn is_slice(step: &str) -> bool {
    step.ends_with(".slice")
}

/// systemd puts an underscore before a name that could be a file of the kernel's.
fn unit(step: &str) -> Option<UnitName> {
    step.strip_prefix('_').unwrap_or(step).parse().ok()
}

fn user_manager(unit: &UnitName) -> Option<u32> {
    unit.as_str().strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(cgroup: &str, name: &str, own_uid: u32) -> bool {
        let units = Units::of(&cgroup.parse().unwrap());
        units.is_some_and(|units| units.include(&name.parse().unwrap(), own_uid))
    }

    #[test]
    fn the_unit_is_the_first_group_below_the_slices() {
        assert!(is_in("/system.slice/agents.service", "agents.service", 0));
        assert!(is_in("/a.slice/a-b.slice/agents.service/sub/leaf", "agents.service", 0));
        assert!(is_in("/init.scope", "init.scope", 0));
        assert!(is_in("/system.slice/_cpu.service", "cpu.service", 0));
        for nowhere in ["/", "/system.slice", "/docker/0123", "/docker/agents.service"] {
            assert!(!is_in(nowhere, "agents.service", 0), "{nowhere}");
        }
    }

    #[test]
    fn a_unit_cannot_name_a_group_of_its_own_like_another_unit() {
        assert!(!is_in("/system.slice/web.service/agents.service", "agents.service", 0));
        assert!(!is_in("/system.slice/web.service/a.slice/agents.service", "agents.service", 0));
        assert!(!is_in("/user.slice/user-7.slice/session-1.scope/agents.service", "agents.service", 7));
    }

    #[test]
    fn a_unit_of_a_users_manager_counts_for_that_user_alone() {
        let agent = "/user.slice/user-1000.slice/user@1000.service/app.slice/agents.service";
        assert!(is_in(agent, "agents.service", 1000));
        assert!(!is_in(agent, "agents.service", 0));
        assert!(!is_in(agent, "agents.service", 1001));
        assert!(is_in(agent, "user@1000.service", 0));
        assert!(!is_in(&format!("{agent}/x.service"), "x.service", 1000));
        let units = Units::of(&agent.parse().unwrap()).unwrap();
        assert_eq!(units.to_string(), "user@1000.service, in it agents.service");
    }
}
