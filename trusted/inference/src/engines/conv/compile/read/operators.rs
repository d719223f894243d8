//! The operators that are covered, each as ONNX defines it for the inputs that are covered.

use super::{
    Affine, Bound, Conv, Kind, Node, OnnxNode, Outcome, Pooling, Reader, Shape, Value, Window,
    Windows, dims, floats, image, integers, windows,
};

impl<'m, 'a> Reader<'m, 'a> {
    pub(super) fn operator(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        match node.op_type {
            "Constant" => self.literal(node),
            "Conv" => self.conv(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "BatchNormalization" => self.batch_norm(node),
            "Relu" => self.bounds(node, Some(0.0), None),
            "Clip" => self.clip(node),
            "Add" => self.add(node),
            "Concat" => self.concat(node),
            "MaxPool" => self.pool(node, Pooling::Maximum),
            "AveragePool" => {
                let with_border = windows::int(node, "count_include_pad", 0) != 0;
                let mean = [Pooling::Mean, Pooling::MeanWithBorder];
                self.pool(node, mean[usize::from(with_border)])
            }
            "GlobalAveragePool" => self.global(node, Pooling::Mean),
            "GlobalMaxPool" => self.global(node, Pooling::Maximum),
            "ReduceMean" => self.reduce_mean(node),
            "Identity" | "Dropout" => self.identity(node),
            "Flatten" => self.flatten(node),
            "Reshape" => self.reshape(node),
            "Softmax" => self.softmax(node),
            _ => Err("this operator is not covered"),
        }
    }

    fn literal(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let tensor = windows::attribute(node, "value").and_then(|a| a.tensor.as_deref());
        let tensor = tensor.ok_or("a constant that is not a tensor")?;
        self.bind(node, Bound::Constant(tensor))
    }

    fn conv(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let (from, shape) = self.image(node, 0)?;
        let tensor = self.constant(node, 1)?;
        let [outs, ins, kh, kw] = *dims(tensor)? else {
            return Err("weights of other than two dimensions");
        };
        let (window, height, width) = Windows::read(node, Some((kh, kw)))?.over(shape)?;
        let group = windows::int(node, "group", 1);
        let bias = match self.optional(node, 2)? {
            Some(bias) => floats(bias)?,
            None => vec![0.0; outs],
        };
        let conv = Conv {
            window,
            weights: floats(tensor)?,
            size: [outs, ins],
            bias,
            prologue: None,
        };
        if conv.bias.len() != outs || conv.weights.is_empty() {
            return Err("weights and bias that do not fit");
        }
        let kind = if group == 1 && ins == shape.channels {
            if window.stride.1 > 2 {
                return Err("strides above 2");
            }
            Kind::Conv(conv)
        } else if usize::try_from(group) == Ok(shape.channels) && outs == shape.channels && ins == 1
        {
            let square = kh == kw && window.stride.0 == window.stride.1;
            if !square || !matches!((kh, window.stride.0), (3 | 5 | 7, 1 | 2)) {
                return Err("a depthwise window of this form");
            }
            Kind::Depthwise(conv)
        } else {
            return Err("groups of channels");
        };
        self.push(node, (kind, from, image(outs, height, width)), |_| {})
    }

    /// `x * weights + bias`, the weights `[in][out]`, or `[out][in]` when `transposed`.
    fn dense(
        &mut self,
        node: &'m OnnxNode<'a>,
        (weights, [ins, outs]): (&[f32], [usize; 2]),
        transposed: bool,
        bias: Vec<f32>,
    ) -> Outcome<()> {
        let from = self.value(node, 0)?;
        let shape = self.values[from.id];
        if !from.flat || ins != shape.channels * shape.height * shape.width || ins * outs == 0 {
            return Err("a matrix that does not fit its input");
        }
        let weights = match transposed {
            true => weights.to_vec(),
            false => {
                let column = |o| (0..ins).map(move |i| weights[i * outs + o]);
                (0..outs).flat_map(column).collect()
            }
        };
        // A window as large as the image: elements are flattened in the order of its weights.
        let kernel = (shape.height, shape.width);
        let conv = Conv {
            window: Window {
                kernel,
                ..Window::PIXEL
            },
            weights,
            size: [outs, shape.channels],
            bias,
            prologue: None,
        };
        self.push(node, (Kind::Conv(conv), from, image(outs, 1, 1)), |_| {})
    }

    fn gemm(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let tensor = self.constant(node, 1)?;
        let [rows, columns] = *dims(tensor)? else {
            return Err("weights that are not a matrix");
        };
        let transposed = windows::int(node, "transB", 0) != 0;
        let size = if transposed {
            [columns, rows]
        } else {
            [rows, columns]
        };
        if windows::int(node, "transA", 0) != 0 {
            return Err("a transposed input");
        }
        let (alpha, beta) = (
            windows::float(node, "alpha", 1.0),
            windows::float(node, "beta", 1.0),
        );
        let mut weights = floats(tensor)?;
        weights.iter_mut().for_each(|w| *w *= alpha);
        let mut bias = match self.optional(node, 2)? {
            None => vec![0.0; size[1]],
            Some(bias) => {
                let (values, dims) = (floats(bias)?, dims(bias)?);
                match (values.as_slice(), dims.as_slice()) {
                    ([value], _) => vec![*value; size[1]],
                    (_, [n] | [1, n]) if *n == size[1] => values,
                    _ => return Err("a bias that differs from row to row"),
                }
            }
        };
        bias.iter_mut().for_each(|b| *b *= beta);
        self.dense(node, (&weights, size), transposed, bias)
    }

    fn matmul(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let tensor = self.constant(node, 1)?;
        let [rows, columns] = *dims(tensor)? else {
            return Err("a factor that is not a matrix");
        };
        let weights = floats(tensor)?;
        let bias = vec![0.0; columns];
        self.dense(node, (&weights, [rows, columns]), false, bias)
    }

    fn batch_norm(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let (from, shape) = self.image(node, 0)?;
        if windows::int(node, "training_mode", 0) != 0 || windows::int(node, "spatial", 1) != 1 {
            return Err("batch normalisation in training");
        }
        let epsilon = f64::from(windows::float(node, "epsilon", 1e-5));
        let part = |index| {
            let values = floats(self.constant(node, index)?)?;
            let fits = values.len() == shape.channels;
            fits.then_some(values).ok_or("statistics of other channels")
        };
        let (gamma, beta, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
        let mut affine = Affine {
            factor: Vec::with_capacity(gamma.len()),
            summand: Vec::with_capacity(gamma.len()),
        };
        for ((gamma, beta), (mean, variance)) in
            gamma.iter().zip(&beta).zip(mean.iter().zip(&variance))
        {
            let factor = f64::from(*gamma) / (f64::from(*variance) + epsilon).sqrt();
            let summand = f64::from(*beta) - f64::from(*mean) * factor;
            #[expect(clippy::cast_possible_truncation, reason = "rounded once, to f32")]
            let (factor, summand) = (factor as f32, summand as f32);
            affine.factor.push(factor);
            affine.summand.push(summand);
        }
        self.push(node, (Kind::Scale(Some(affine)), from, shape), |_| {})
    }

    fn bounds(
        &mut self,
        node: &'m OnnxNode<'a>,
        low: Option<f32>,
        high: Option<f32>,
    ) -> Outcome<()> {
        let from = self.value(node, 0)?;
        let shape = self.values[from.id];
        self.push(node, (Kind::Scale(None), from, shape), |new: &mut Node| {
            (new.low, new.high) = (low, high);
        })
    }

    fn clip(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let bound = |index, name| match self.optional(node, index)? {
            Some(tensor) => match *floats(tensor)? {
                [value] => Ok(Some(value)),
                _ => Err("bounds that differ from element to element"),
            },
            None => Ok(windows::attribute(node, name).and_then(|a| a.float)),
        };
        let (low, high) = (bound(1, "min")?, bound(2, "max")?);
        let finite = |bound: Option<f32>| bound.is_none_or(f32::is_finite);
        if !finite(low) || !finite(high) {
            return Err("bounds that are not finite");
        }
        self.bounds(node, low, high)
    }

    fn add(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let (from, more) = (self.value(node, 0)?, self.value(node, 1)?);
        let shape = self.values[from.id];
        if shape != self.values[more.id] || from.flat != more.flat {
            return Err("an addition of other shapes");
        }
        self.push(node, (Kind::Scale(None), from, shape), |new: &mut Node| {
            new.residual = Some(more.id);
        })
    }

    fn concat(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        if !matches!(windows::int(node, "axis", 0), 1 | -3) {
            return Err("an axis other than the channels'");
        }
        let (first, mut whole) = self.image(node, 0)?;
        let mut others = Vec::new();
        for index in 1..node.inputs.len() {
            let (value, shape) = self.image(node, index)?;
            if (shape.height, shape.width) != (whole.height, whole.width) {
                return Err("images of other sizes");
            }
            whole.channels += shape.channels;
            others.push(value.id);
        }
        self.push(node, (Kind::Concat(others), first, whole), |_| {})
    }

    fn pool(&mut self, node: &'m OnnxNode<'a>, pooling: Pooling) -> Outcome<()> {
        let (from, shape) = self.image(node, 0)?;
        let (window, height, width) = Windows::read(node, None)?.over(shape)?;
        if window.dilation != (1, 1) {
            return Err("dilated windows");
        }
        let shape = Shape {
            height,
            width,
            ..shape
        };
        self.push(node, (Kind::Pool(window, pooling), from, shape), |_| {})
    }

    fn global(&mut self, node: &'m OnnxNode<'a>, pooling: Pooling) -> Outcome<()> {
        let (from, shape) = self.image(node, 0)?;
        let window = Window {
            kernel: (shape.height, shape.width),
            ..Window::PIXEL
        };
        let kind = Kind::Pool(window, pooling);
        self.push(node, (kind, from, image(shape.channels, 1, 1)), |_| {})
    }

    fn reduce_mean(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let mut axes = match self.optional(node, 1)? {
            Some(tensor) => integers(tensor)?,
            None => windows::attribute(node, "axes").map_or(Vec::new(), |a| a.ints.clone()),
        };
        axes.iter_mut()
            .filter(|a| **a < 0)
            .for_each(|a| *a = a.saturating_add(4));
        axes.sort_unstable();
        if axes != [2, 3] {
            return Err("axes other than height and width");
        }
        self.global(node, Pooling::Mean)?;
        if windows::int(node, "keepdims", 1) == 0 {
            self.flat(node, true)?;
        }
        Ok(())
    }

    /// Another view of the value that a node made or passes on.
    fn flat(&mut self, node: &'m OnnxNode<'a>, flat: bool) -> Outcome<()> {
        let made = node.outputs.first().and_then(|name| self.names.get(name));
        let Some(Bound::Value(value)) = made else {
            return Err("an output that is not there");
        };
        let value = Value { flat, ..*value };
        self.bind(node, Bound::Value(value))
    }

    fn identity(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let value = self.value(node, 0)?;
        if self.optional(node, 2)?.is_some() {
            return Err("dropout in training");
        }
        self.bind(node, Bound::Value(value))
    }

    fn flatten(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let value = self.value(node, 0)?;
        let axis = windows::int(node, "axis", 1);
        let first = match value.flat {
            true => matches!(axis, 1 | -1),
            false => matches!(axis, 1 | -3),
        };
        if !first {
            return Err("an axis other than the first after the batch");
        }
        self.bind(
            node,
            Bound::Value(Value {
                flat: true,
                ..value
            }),
        )
    }

    fn reshape(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let value = self.value(node, 0)?;
        let shape = self.values[value.id];
        let elements = shape.channels * shape.height * shape.width;
        let target = integers(self.constant(node, 1)?)?;
        let all = |n: i64| usize::try_from(n) == Ok(elements);
        // Zero keeps the batch; -1 may be either, but not where the other is open too.
        let fits = match *target.as_slice() {
            [0, -1] => true,
            [0 | -1, n] => all(n),
            [1, n] => self.single && (n == -1 || all(n)),
            _ => false,
        };
        if !fits || windows::int(node, "allowzero", 0) != 0 {
            return Err("a shape other than one row for each image");
        }
        self.bind(
            node,
            Bound::Value(Value {
                flat: true,
                ..value
            }),
        )
    }

    fn softmax(&mut self, node: &'m OnnxNode<'a>) -> Outcome<()> {
        let from = self.value(node, 0)?;
        let shape = self.values[from.id];
        let axis = windows::int(node, "axis", if self.opset < 13 { 1 } else { -1 });
        let vector = (shape.height, shape.width) == (1, 1);
        if !from.flat || !vector || !matches!(axis, 1 | -1) {
            return Err("a softmax of other than one row for each image");
        }
        self.push(node, (Kind::Softmax, from, shape), |_| {})
    }
}
