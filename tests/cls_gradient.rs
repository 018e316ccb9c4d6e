//! The numbers in section 5.5 of the course: logits, loss, gradients and one step of gradient descent.

use cloze::prelude::*;

#[test]
fn the_course_prints_these_numbers() -> Result<(), cloze::tensor::Error> {
    let device = Device::Cpu;
    let h = Tensor::new([0.2f32, 0.1, 0.4], &device)?.requires_grad();
    let w = Tensor::new([[0.5f32, -0.3, 0.1], [-0.2, 0.4, 0.6]], &device)?.requires_grad();
    let logits = w.matmul(&h)?;
    let loss = logits.cross_entropy(&[1])?;
    let near = |computed: &Tensor, expected: &[f32], tolerance: f32| {
        let computed = computed.to_vec::<f32>().unwrap();
        assert_eq!(computed.len(), expected.len());
        for (a, b) in computed.iter().zip(expected) {
            assert!((a - b).abs() < tolerance, "{computed:?} against {expected:?}");
        }
    };
    near(&logits.softmax()?, &[0.467_545_72, 0.532_454_3], 1e-7);
    assert!((loss.item()? - 0.630_258_2).abs() < 1e-7);
    let gradients = loss.backward()?;
    let (dh, dw) = (gradients.get(&h).unwrap(), gradients.get(&w).unwrap());
    near(&dh, &[0.3273, -0.3273, -0.2338], 5e-5);
    near(&dw, &[0.0935, 0.0468, 0.1870, -0.0935, -0.0468, -0.1870], 5e-5);
    let step = |x: &Tensor, dx: &Tensor| x.sub(&dx.mul_scalar(0.5)?);
    let after = no_grad(|| step(&w, &dw)?.matmul(&step(&h, &dh)?)?.softmax())?;
    near(&after, &[0.370_532_24, 0.629_467_7], 1e-6);
    Ok(())
}
