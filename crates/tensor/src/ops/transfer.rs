//! Moving tensors between devices.

use crate::autograd::differentiable;
use crate::copy::moved;
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// Copies the elements, row-major, to another device; returns this tensor if it is there already. The gradient comes
    /// back to this tensor's device.
    ///
    /// # Errors
    /// Returns an error if the device lacks memory or has failed.
    pub fn to_device(&self, device: &Device) -> Result<Tensor> {
        const OP: &str = "to_device";
        let from = self.device();
        if from == *device {
            return Ok(self.clone());
        }
        let output = moved(OP, &self.detach(), device)?;
        Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| dx.give_with(|| dy.to_device(&from))))
    }
}
