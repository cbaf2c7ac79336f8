//! What is known of the devices that steps are about, for whoever decides who is told.

use std::sync::Arc;

use super::Evaluator;
use super::program::Form;
use crate::alert::transition::Transition;
use crate::config::Whose;

/// A device that a rule looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    pub tenant: Arc<str>,
    pub uid: Arc<str>,
    /// Name of its group, where the rule is kept for groups.
    pub group: Option<Arc<str>>,
}

impl Evaluator {
    /// The devices that a rule looks at; of one that is kept for groups those that are in one.
    pub fn looked_at(&self, slug: &str) -> Vec<Looked> {
        let of = |(no, device): (u32, &super::fleet::Device)| {
            let mut rules = device
                .instances
                .iter()
                .filter_map(|instance| Some((instance.rule, self.program.rules.get(instance.rule as usize)?)));
            let (place, rule) =
                rules.find(|(_, rule)| *rule.rule.slug == *slug && !matches!(rule.form, Form::Group(_)))?;
            let group = match rule.form {
                Form::Member(_) => {
                    let group = self.fleet.groups.of(no, place)?;
                    Some(Arc::clone(&self.fleet.devices.get(group as usize)?.uid))
                }
                Form::Device | Form::Group(_) => None,
            };
            Some(Looked { tenant: Arc::clone(&device.tenant), uid: Arc::clone(&device.uid), group })
        };
        (0..).zip(&self.fleet.devices).filter_map(of).collect()
    }

    /// The steps since the last [`Evaluator::drain`].
    pub fn steps(&self) -> &[Transition] {
        &self.outcome.transitions
    }

    /// Template, site with its time zone, and tags of a step's device, as rules see them.
    pub fn whose(&self, step: &Transition) -> Whose<'_> {
        let template = self.fleet.find(&step.tenant, &step.device).and_then(|no| self.fleet.devices.get(no as usize));
        let placed = self.placed.get(&(step.tenant.clone(), step.device.clone()));
        Whose {
            template: template.and_then(|device| device.template.as_deref()),
            site: placed.and_then(|placed| placed.site.as_deref()),
            tags: placed.map(|placed| &placed.tags),
            zone: placed
                .and_then(|placed| placed.site.as_ref())
                .and_then(|site| self.program.site_zone(&step.tenant, site)),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::alert::State;
    use crate::alert::announce::tests::step;
    use crate::catalog::{Device, Site, Snapshot};
    use crate::normalize::testing;

    #[test]
    fn a_device_has_the_time_zone_of_its_site_where_that_is_declared() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let site = Site { tenant: "default".into(), name: "yard".into(), zone: berlin.clone() };
        let device =
            |id: i32, uid: &str, site: &str| Device { site: Some(site.into()), ..testing::device(id, uid, None) };
        let devices = vec![device(1, "here", "yard"), device(2, "there", "elsewhere")];
        let evaluator = Evaluator::new(&Snapshot { sites: vec![site], devices, ..Snapshot::default() }, Vec::new());
        let zone = |uid: &str| {
            let step = crate::alert::Transition { device: uid.into(), ..step("a", 0, State::Firing) };
            evaluator.whose(&step).zone.cloned()
        };
        assert_eq!(zone("here"), Some(berlin));
        assert_eq!(zone("there"), None);
        assert_eq!(zone("nobody"), None);
    }
}
