# Initial parameters from a specified generator, so that a seed gives the same numbers on every Julia version, host
# and language: xoshiro256++ seeded by splitmix64 (Blackman and Vigna, ACM TOMS 47, 2021) and the polar method
# (Marsaglia and Bray, SIAM Review 6, 1964) over a logarithm made of additions, multiplications and divisions
# only, which IEEE arithmetic defines to the last bit (Base.log and its fused operations may differ by an ulp).

"""
    Xoshiro256(seed)

The generator behind `random_params`.
"""
mutable struct Xoshiro256
    s0::UInt64
    s1::UInt64
    s2::UInt64
    s3::UInt64
end

function Xoshiro256(seed::Integer)
    state = seed % UInt64
    return Xoshiro256((splitmix(state + k * 0x9e3779b97f4a7c15) for k in 0x0000000000000001:0x0000000000000004)...)
end

function splitmix(state::UInt64)
    z = (state ⊻ (state >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ⊻ (z >> 27)) * 0x94d049bb133111eb
    return z ⊻ (z >> 31)
end

rotl(x::UInt64, k) = (x << k) | (x >> (64 - k))

function next!(rng::Xoshiro256)
    result = rotl(rng.s0 + rng.s3, 23) + rng.s0
    t = rng.s1 << 17
    rng.s2 ⊻= rng.s0
    rng.s3 ⊻= rng.s1
    rng.s1 ⊻= rng.s2
    rng.s0 ⊻= rng.s3
    rng.s2 ⊻= t
    rng.s3 = rotl(rng.s3, 45)
    return result
end

"Uniform on [0, 1): the upper 53 bits."
uniform!(rng::Xoshiro256) = (next!(rng) >> 11) * 2.0^-53

# log x = e ln2 + 2 atanh((m - 1)/(m + 1)) with m in [√½, √2]
function plain_log(x::Float64)
    bits = reinterpret(UInt64, x)
    e = Int(bits >> 52) - 1022
    m = reinterpret(Float64, (bits & 0x000fffffffffffff) | 0x3fe0000000000000)
    if m < 0.7071067811865476
        m, e = 2m, e - 1
    end
    s = (m - 1) / (m + 1)
    z = s * s
    p = 1 / 23
    for k in 21:-2:1
        p = p * z + 1 / k
    end
    return e * 0.6931471805599453 + 2 * s * p
end

"Standard normal."
function normal!(rng::Xoshiro256)
    while true
        u, v = 2 * uniform!(rng) - 1, 2 * uniform!(rng) - 1
        q = u * u + v * v
        0 < q < 1 && return u * sqrt(-2 * plain_log(q) / q)
    end
end

uniform!(rng::AbstractRNG) = rand(rng)
normal!(rng::AbstractRNG) = randn(rng)

"""
    glorot_normal(rng, fan_in, fan_out), glorot_uniform(rng, fan_in, fan_out)

One weight with mean 0 and variance 2/(fan_in + fan_out) (Glorot and Bengio, AISTATS 2010).
"""
glorot_normal(rng, fan_in, fan_out) = sqrt(2 / (fan_in + fan_out)) * normal!(rng)
glorot_uniform(rng, fan_in, fan_out) = sqrt(6 / (fan_in + fan_out)) * (2 * uniform!(rng) - 1)

const INITIALISERS = Dict{String,Function}("glorot_normal" => glorot_normal, "glorot_uniform" => glorot_uniform)

"""
    random_params(seed, net; init = glorot_normal, scales = 1) -> θ
    random_params(rng, net; init = glorot_normal, scales = 1) -> θ

Initial parameters (length P): weights from `init(rng, fan_in, fan_out)`, biases zero. `scales`, a number or one for
each layer, multiplies the weights. The same seed gives the same numbers on every Julia version and from Python; an
`AbstractRNG` gives what it gives.
"""
random_params(seed::Integer, net::Net; options...) = random_params(Xoshiro256(seed), net; options...)

function random_params(rng, net::Net{T}; init=glorot_normal, scales=1) where {T}
    scales isa Real || length(scales) == length(net.layers) ||
        throw(DimensionMismatch("scales has $(length(scales)) entries for $(length(net.layers)) layers"))
    θ = zeros(T, net.n_params)
    for (number, l) in enumerate(net.layers), i in l.offset+1:bias_offset(l)
        θ[i] = T(init(rng, l.fan_in, l.width) * (scales isa Real ? scales : scales[number]))
    end
    return θ
end

"""
    unpack(net, θ) -> [(W, b), …]

Weights (width × fan_in) and biases (a vector, or `nothing`) of each layer, as views on θ. θ holds each W row
by row: the order of NumPy and PyTorch.
"""
function unpack(net::Net, θ)
    check_params(net, θ)
    return map(net.layers) do l
        W = PermutedDimsArray(reshape(view(θ, l.offset+1:bias_offset(l)), l.fan_in, l.width), (2, 1))
        (W, l.bias ? view(θ, bias_offset(l)+1:bias_offset(l)+l.width) : nothing)
    end
end
