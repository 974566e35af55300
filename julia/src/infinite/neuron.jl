# A hidden unit as the integrators see it: f(r x + b) of a standard normal x along the unit vector n.

const TERMS = 256                       # Hermite coefficients at most
const STAGES = (64, 128, 256)           # and the numbers of them that are tried

"How a unit's expectations are found."
@enum Kind smooth piecewise rectified cumulative exponential

"""
    Neuron

`kind` says which closed forms there are: `rectified` (relu), `cumulative` (gain Φ - offset: normal_cdf, sigmoid2),
`exponential`; else `smooth` or `piecewise`: analytic but for `kinks`, where f' jumps by `jumps`. `degree` of a
polynomial, else -1. `bandwidth`: the Fourier transform of f'' falls below 1e-14 of its size beyond this frequency, or
so one thinks before it is `measured`.

At norm `r` and bias `b`, with `terms` valid coefficients: `A`, `B`, `C` are those of f, f' and f'' in orthonormal
Hermite polynomials of x; `C1`, `C2` those of r f''' and r² f''''. `decay[m]`: size of the last of the first `STAGES[m]`
coefficients in `C`, once these are there; `norm` is √E f². `even`, `odd`, `scale` (√E f''²), `transformed` (the number
of coefficients made from them) and `resolved` (whether f is) belong to the rule of step 2^-`level`.
"""
mutable struct Neuron{S}
    activation::Activation
    kind::Kind
    kinks::Vector{Float64}
    jumps::Vector{Float64}
    degree::Int
    gain::Float64
    bandwidth::Float64
    measured::Float64
    r::S
    b::S
    n::Vector{S}
    level::Int
    stage::Int
    terms::Int
    norm::Float64
    decay::Vector{Float64}
    A::Vector{Float64}
    B::Vector{Float64}
    C::Vector{Float64}
    C1::Vector{Float64}
    C2::Vector{Float64}
    even::Vector{Float64}
    odd::Vector{Float64}
    scale::Float64
    transformed::Int
    resolved::Bool
end

function Neuron{S}(a::Activation, D::Int) where {S}
    a isa Union{Sharp,Inside} && throw(ArgumentError("$a is for nets with data, not for infinitely many normal inputs"))
    kind = a isa Relu ? rectified : a isa Union{NormalCdf,Sigmoid2} ? cumulative : a isa Exp ? exponential : smooth
    kinks, jumps = find_kinks(a)::NTuple{2,Vector{Float64}}
    kind == smooth && !isempty(kinks) && (kind = piecewise)
    A, B, C, C1, C2 = (zeros(TERMS + 2) for _ in 1:5)
    return Neuron{S}(a, kind, kinks, jumps, degree(a)::Int, a isa Sigmoid2 ? 2.0 : 1.0, bandwidth(a)::Float64,
                     bandwidth(a)::Float64, zero(S), zero(S), zeros(S, D), 0, 0, 0, 0.0, zeros(length(STAGES)), A, B, C,
                     C1, C2, Float64[], Float64[], 0.0, 0, true)
end

degree(::Activation) = -1
degree(::Identity) = 1
degree(::Square) = 2
degree(::Cube) = 3
degree(p::Poly) = something(findlast(!iszero, p.coefficients), 1) - 1

# The transform falls like exp(-ω d) where the nearest pole is at distance d from the real line: exp(-32) is 1e-14. That
# of f'' = (2 - x²) φ(x), and the like, falls like a Gaussian.
bandwidth(::Activation) = 32 / (pi / 2)
bandwidth(::Union{Softplus,Sigmoid,Silu}) = 32 / pi
bandwidth(::GFunction) = 32 / (pi / 4)
bandwidth(::Union{Gelu,NormalCdf,Sigmoid2}) = 9.0
bandwidth(::Union{Identity,Square,Cube,Poly,Relu,Selu,Exp}) = 0.0

find_kinks(::Activation) = (Float64[], Float64[])
find_kinks(::Relu) = ([0.0], [1.0])
find_kinks(a::Sharp) = homogeneity(a) == 1 ? find_kinks(relu) : (Float64[], Float64[])
find_kinks(a::Selu) = ([0.0], [derivatives(a, 1e-300)[2] - derivatives(a, -1e-300)[2]])

"""
    find_kinks(a::Custom) -> (positions, jumps of f')

Where f' or f'' of a user's activation jumps, for |x| up to 120, by bisection of the cells of a grid over which f' or
f'' changes. Of several in one cell one is found. A jump of f itself is refused.
"""
function find_kinks(a::Custom)
    kinks, jumps = Float64[], Float64[]
    cell, x = 0.04, -120.0133
    left = derivatives(a, x)
    while x < 120
        right = derivatives(a, x + cell)
        if right[3] != left[3] || abs(right[2] - left[2] - cell * left[3]) > 1e-9 * abs(left[2]) ||
           abs(right[1] - left[1] - cell * left[2]) > 1e-9 * abs(left[1])
            kink = bisect_kink(a, x, x + cell)
            if kink !== nothing
                push!(kinks, kink[1])
                push!(jumps, kink[2])
            end
        end
        x, left = x + cell, right
    end
    return kinks, jumps
end

function bisect_kink(a::Custom, lo::Float64, hi::Float64)
    for i in 1:3
        change(u, v) = abs(derivatives(a, v)[i] - derivatives(a, u)[i])
        u, v, largest = lo, hi, change(lo, hi)
        largest > 1e-9 * (abs(derivatives(a, u)[i]) + abs(derivatives(a, v)[i])) || continue
        # Tails that saturate move in steps of the rounding of what they come from, as 1 - tanh(x)^2 does.
        rounding = 1e-12 * maximum(maximum(abs, derivatives(a, lo + d)[1:i]) for d in -1:0.125:1)
        while true
            m = (u + v) / 2
            left, right = change(u, m), change(m, v)
            largest = max(largest, left, right)
            # What is smooth changes in proportion to the width, and what is only sharp soon does.
            (m <= u || m >= v || (v - u < 1e-6 * (hi - lo) && change(u, v) < 1e-3 * largest)) && break
            left > right ? (v = m) : (u = m)
        end
        change(u, v) < max(1e-3 * largest, rounding) && continue
        i == 1 && throw(ArgumentError("the activation $(a.f) jumps near x = $u: only kinks can be integrated"))
        return abs(u) < 1e-12 ? 0.0 : (u + v) / 2, derivatives(a, v)[2] - derivatives(a, u)[2]
    end
    return nothing
end

"Whether a unit whose largest weight is `s` sees nothing of the input."
sees_nothing(s::Float64) = !(s > 1e-150)

"Set the unit to the weights θ[o+1:o+D] and the bias b."
function aim!(p::Neuron{S}, θ::Vector{S}, o::Int, b) where {S}
    s = zero(S)
    @inbounds for d in eachindex(p.n)
        s = max(s, abs(θ[o+d]))
    end
    if sees_nothing(s)
        fill!(p.n, 0)
        p.r = s == s ? 0.0 : NaN
    else
        r = zero(S)
        @inbounds for d in eachindex(p.n)
            p.n[d] = θ[o+d] / s
            r = muladd(p.n[d], p.n[d], r)
        end
        r = sqrt(r)
        p.n ./= r
        p.r = s * r
    end
    p.b = b
    p.stage = p.terms = 0
    return nothing
end
