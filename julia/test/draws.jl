# Normal numbers that are the same with every Julia; those of MersenneTwister depend on Julia's version.
import MLPGF

function normals(seed, dims...)
    rng = MLPGF.Xoshiro256(seed)
    return reshape([MLPGF.normal!(rng) for _ in 1:prod(dims)], dims)
end
