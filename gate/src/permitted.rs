//! A pod and the permit to start it.

use crate::LaunchPermit;
use sandbox_image::Text;

/// What has a pod's UUID.
pub trait Pod {
    /// The UUID, as [`crate::Approval::permit`] was given it.
    fn uuid(&self) -> String;
}

/// A pod together with the permit for it, which is what starts pods take. It can't be made without
/// one, nor with that of another pod, and can't be copied.
#[derive(Debug)]
#[must_use = "a permitted pod is there to be started"]
pub struct Permitted<P> {
    pod: P,
    permit: LaunchPermit,
}

/// The permit is for another pod.
#[derive(Debug, thiserror::Error)]
#[error("the gate's permit is for pod {permitted}, and not for pod {pod}, which is not started")]
pub struct NotPermitted {
    /// The pod that should have been started.
    pub pod: Text,
    /// The pod that the permit is for.
    pub permitted: Text,
}

impl<P: Pod> Permitted<P> {
    /// Puts a pod and its permit together.
    ///
    /// # Errors
    /// [`NotPermitted`] if it is for another one.
    pub fn new(pod: P, permit: LaunchPermit) -> Result<Self, NotPermitted> {
        let uuid = pod.uuid();
        if uuid != permit.pod() {
            return Err(NotPermitted { pod: Text::new(uuid), permitted: Text::new(permit.pod()) });
        }
        Ok(Self { pod, permit })
    }
}

impl<P> Permitted<P> {
    /// The pod.
    pub fn pod(&self) -> &P {
        &self.pod
    }

    /// The permit.
    pub fn permit(&self) -> &LaunchPermit {
        &self.permit
    }

    /// Takes both apart, for whoever starts the pod. It can't be started again after that.
    pub fn into_parts(self) -> (P, LaunchPermit) {
        (self.pod, self.permit)
    }
}
