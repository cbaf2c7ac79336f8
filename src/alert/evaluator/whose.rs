//! What is known of the devices that steps are about, for whoever decides who is told.

use super::Evaluator;
use crate::alert::transition::Transition;
use crate::config::Whose;

impl Evaluator {
    /// The steps since the last [`Evaluator::drain`].
    pub fn steps(&self) -> &[Transition] {
        &self.outcome.transitions
    }

    /// Template, site and tags of a step's device, as rules see them.
    pub fn whose(&self, step: &Transition) -> Whose<'_> {
        let template = self.fleet.find(&step.tenant, &step.device).and_then(|no| self.fleet.devices.get(no as usize));
        let placed = self.placed.get(&(step.tenant.clone(), step.device.clone()));
        Whose {
            template: template.and_then(|device| device.template.as_deref()),
            site: placed.and_then(|placed| placed.site.as_deref()),
            tags: placed.map(|placed| &placed.tags),
            zone: None,
        }
    }
}
