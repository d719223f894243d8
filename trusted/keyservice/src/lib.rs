//! The attested key broker: releases keys only to attested instances that owner and user allowed.
