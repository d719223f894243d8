//! Which instructions this CPU has.

/// An instruction set that the kernels are written for. Only [`Isa::detect`] and
/// [`Isa::available`] make the fast ones, so that having one proves that the CPU has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(pub(crate) Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The bounds-checked twin that every other one is tested against.
    pub const PORTABLE: Self = Self(Level::Portable);

    /// All that this CPU can run, fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(Self(Level::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self(Level::Avx2));
            }
        }
        all.push(Self::PORTABLE);
        all
    }

    /// The fastest.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().first().copied().unwrap_or(Self::PORTABLE)
    }

    /// `avx512`, `avx2` or `portable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        }
    }
}
