//! Hostile plans: every number of a good one, made bad.

use kernels::{Alone, Isa};

use super::*;
use crate::engines::conv::plan::Plan;

/// Two convolutions, the second with a residual, and a pooling.
fn plan() -> Plan {
    let place = |at, size: usize, edge: usize| Place {
        at,
        rgb: false,
        blocks: 1,
        size: [size, size],
        border: [edge; 4],
    };
    let span = |kernel: usize, before: usize| Span {
        kernel: (kernel, kernel),
        stride: (1, 1),
        dilation: (1, 1),
        before: (before, before),
    };
    let conv = |from, to, span, residual| Step::Conv {
        from,
        to,
        span,
        weights: 16,
        bias: 0,
        residual,
        prologue: None,
        bounds: Bounds::default(),
    };
    let scale = Scale {
        factor: 0,
        summand: 0,
    };
    let port = |image, shape: &[usize]| Port {
        name: "x".into(),
        image,
        channels: 16,
        shape: shape.into(),
    };
    Plan {
        format: FORMAT,
        arena: 2000,
        images: vec![
            place(0, 4, 1),
            place(576, 4, 0),
            place(832, 4, 0),
            place(1088, 1, 0),
        ],
        input: port(0, &[16, 4, 4]),
        steps: vec![
            conv(0, 1, span(3, 1), None),
            conv(1, 2, span(1, 0), Some(1)),
            Step::Pool {
                from: 2,
                to: 3,
                span: span(4, 0),
                pooling: Pooling::Mean,
            },
            Step::Softmax {
                image: 3,
                channels: 10,
            },
            Step::Pointwise {
                from: 3,
                to: 1,
                scale: Some(scale),
                residual: None,
                bounds: Bounds::default(),
            },
        ],
        outputs: vec![port(3, &[16])],
    }
}

const WEIGHTS: usize = 16 + 9 * 256;

fn refused(change: impl FnOnce(&mut Plan)) -> PlanError {
    let mut changed = plan();
    change(&mut changed);
    Program::new(&changed, WEIGHTS, &LoadLimits::default()).unwrap_err()
}

/// The plan with its last step taken off, which does not fit.
fn good() -> Plan {
    let mut plan = plan();
    plan.steps.pop();
    plan
}

#[test]
fn the_good_plan_is_good() {
    let program = Program::new(&good(), WEIGHTS, &LoadLimits::default()).unwrap();
    let mut arena = Arena::new(&program, 1).unwrap();
    let mut out = [Vec::new()];
    let image = vec![0; program.input.bytes()];
    let by = (Isa::detect(), &Alone as &dyn kernels::Crew);
    program
        .run(by, &vec![0.5; WEIGHTS], &mut arena, &image, &mut out)
        .unwrap();
    assert_eq!(out[0].len(), 64);
    assert!(matches!(refused(|_| {}), PlanError::Step { step: 4, .. }));
    assert!(Program::new(&good(), WEIGHTS - 1, &LoadLimits::default()).is_err());
}

#[test]
fn memory_that_is_not_there_is_refused() {
    for (image, end) in [(0, 1440), (1, 1760), (2, 1760), (3, 2000)] {
        let outside = refused(|p| p.images[image].at = end.max(1984));
        assert!(
            matches!(outside, PlanError::Outside(i) if i == image),
            "{outside}"
        );
    }
    assert!(matches!(
        refused(|p| p.images[1].at = usize::MAX - 15),
        PlanError::Outside(1)
    ));
    assert!(matches!(
        refused(|p| p.images[1].at += 1),
        PlanError::Outside(1)
    ));
    assert!(matches!(
        refused(|p| p.arena = 1 << 40),
        PlanError::Limit { .. }
    ));
    assert!(matches!(
        refused(|p| p.images[1].blocks = 0),
        PlanError::Image { .. }
    ));
    assert!(matches!(
        refused(|p| p.images[1].border[2] = usize::MAX),
        PlanError::Image { .. }
    ));
    assert!(matches!(
        refused(|p| p.images[1].size = [1 << 16; 2]),
        PlanError::Image { .. }
    ));
    assert!(matches!(
        refused(|p| p.input.image = 4),
        PlanError::NoImage(4)
    ));
    assert!(matches!(refused(|p| p.format = 2), PlanError::Format(2)));
}

#[test]
fn what_was_not_written_in_this_run_is_not_read() {
    // An arena holds what the request before left in it.
    let swapped = refused(|p| p.steps.swap(0, 1));
    assert!(
        matches!(swapped, PlanError::Unwritten { step: 0 }),
        "{swapped}"
    );
    let skipped = refused(|p| p.steps[2] = p.steps[3].clone());
    assert!(
        matches!(skipped, PlanError::Unwritten { step: 2 }),
        "{skipped}"
    );
    let output = refused(|p| {
        p.steps.truncate(1);
        p.outputs[0] = Port {
            image: 2,
            shape: vec![16, 4, 4],
            ..p.outputs[0].clone()
        };
    });
    assert!(
        matches!(output, PlanError::Unwritten { step: 1 }),
        "{output}"
    );
    // One line short: the last 16 floats of the input were never written.
    let partly = refused(|p| {
        p.images.push(Place {
            at: 592,
            ..p.images[1].clone()
        });
        p.images.push(Place {
            at: 1200,
            ..p.images[1].clone()
        });
        p.steps.truncate(1);
        p.steps.push(Step::Pointwise {
            from: 4,
            to: 5,
            scale: None,
            residual: None,
            bounds: Bounds::default(),
        });
    });
    assert!(
        matches!(partly, PlanError::Unwritten { step: 1 }),
        "{partly}"
    );
}

#[test]
fn steps_that_read_what_they_write_are_refused() {
    let same = refused(|p| p.images[2].at = p.images[1].at);
    assert!(matches!(same, PlanError::Overlap { step: 1 }), "{same}");
    let partly = refused(|p| p.images[2].at = p.images[1].at + 16);
    assert!(matches!(partly, PlanError::Overlap { step: 1 }), "{partly}");
}

#[test]
fn shapes_and_weights_that_do_not_fit_are_refused() {
    let refused_conv = |change: fn(&mut Span, &mut usize, &mut usize)| {
        refused(|p| {
            if let Step::Conv {
                span,
                weights,
                bias,
                ..
            } = &mut p.steps[0]
            {
                change(span, weights, bias);
            }
        })
    };
    let border = refused_conv(|span, _, _| span.before = (2, 2));
    assert!(
        matches!(border, PlanError::Step { step: 0, .. }),
        "{border}"
    );
    let wide = refused_conv(|span, _, _| span.kernel = (3, 4));
    assert!(matches!(wide, PlanError::Step { step: 0, .. }), "{wide}");
    let weights = refused_conv(|_, weights, _| *weights = 32);
    assert!(
        matches!(weights, PlanError::Weights { step: 0, .. }),
        "{weights}"
    );
    let odd = refused_conv(|_, weights, _| *weights = 15);
    assert!(matches!(odd, PlanError::Weights { step: 0, .. }), "{odd}");
    let bias = refused_conv(|_, _, bias| *bias = usize::MAX - 15);
    assert!(matches!(bias, PlanError::Weights { step: 0, .. }), "{bias}");
    let residual = refused(|p| {
        if let Step::Conv { residual, .. } = &mut p.steps[1] {
            *residual = Some(0);
        }
        p.images[0].size = [5, 5];
        p.images[0].border = [0; 4];
    });
    assert!(
        matches!(residual, PlanError::Port { .. } | PlanError::Step { .. }),
        "{residual}"
    );
    let softmax = refused(|p| {
        p.steps[3] = Step::Softmax {
            image: 3,
            channels: 17,
        }
    });
    assert!(
        matches!(softmax, PlanError::Step { step: 3, .. }),
        "{softmax}"
    );
    let port = refused(|p| p.input.channels = 17);
    assert!(
        matches!(port, PlanError::Port { side: "input", .. }),
        "{port}"
    );
    let shape = refused(|p| p.input.shape = vec![usize::MAX, 4, 4]);
    assert!(
        matches!(shape, PlanError::Port { side: "input", .. }),
        "{shape}"
    );
}

#[test]
fn a_run_is_bounded() {
    // Each step is allowed, all of them together are days of work.
    let endless = refused(|p| {
        p.arena = 1 << 28;
        let size = [2000, 2000];
        p.images[1] = Place {
            at: 1 << 20,
            size,
            ..p.images[1].clone()
        };
        p.images[2] = Place {
            at: 1 << 27,
            size,
            ..p.images[2].clone()
        };
        let step = Step::Pool {
            from: 1,
            to: 2,
            span: Span {
                kernel: (2000, 2000),
                stride: (1, 1),
                dilation: (1, 1),
                before: (0, 0),
            },
            pooling: Pooling::Mean,
        };
        let fill = Step::Pointwise {
            from: 1,
            to: 2,
            scale: None,
            residual: None,
            bounds: Bounds::default(),
        };
        p.images[0] = p.images[1].clone();
        p.input.shape = vec![16, 2000, 2000];
        p.steps = vec![fill, step];
    });
    assert!(
        matches!(
            endless,
            PlanError::Limit {
                what: "multiply-adds",
                ..
            }
        ),
        "{endless}"
    );
}
