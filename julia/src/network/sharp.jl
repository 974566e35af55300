"""
    Sharp(f, ε = 0)

What becomes of a unit with the activation f whose incoming weights go to infinity: with tanh or sigmoid2 the sign, with
sigmoid or normal_cdf a step from 0 to 1; with softplus, gelu or silu, whose outgoing weights go to zero at the same
time, a relu. With `ε` > 0 it is f(x/ε), or ε f(x/ε), a unit of f in other parameters.

A step has no derivative: what moves it across a sample is not seen by a gradient.
"""
struct Sharp{F<:Activation} <: Activation
    f::F
    ε::Float64
    function Sharp(f::Activation, ε::Real=0)
        is_sigmoidal(f) || is_ramp(f) ||
            throw(ArgumentError("$f does not become a step or a relu; " *
                                "$(join(names_where(g -> is_sigmoidal(g) || is_ramp(g)), ", ")) do"))
        0 <= ε < Inf || throw(ArgumentError("a Sharp has ε = $ε; 0 or more is possible"))
        return new{typeof(f)}(f, Float64(ε))
    end
end
Base.show(io::IO, a::Sharp) = print(io, "Sharp(", a.f, ", ", a.ε, ")")

"Whether f becomes a step, or a relu, as its argument is stretched."
is_sigmoidal(::Activation) = false
is_sigmoidal(::Union{Tanh,Sigmoid,Sigmoid2,NormalCdf}) = true
is_ramp(::Activation) = false
is_ramp(::Union{Softplus,Gelu,Silu}) = true
"The least that a step takes on."
floor_of(::Union{Tanh,Sigmoid2}) = -1
floor_of(::Union{Sigmoid,NormalCdf}) = 0

@inline function derivatives(a::Sharp, x)
    if is_ramp(a.f)
        a.ε == 0 && return derivatives(relu, x)
        ε = eltype(x)(a.ε)
        f, d, s = derivatives(a.f, x / ε)
        return (ε * f, d, s / ε)
    end
    if a.ε == 0
        low, high = floor_of(a.f) * one(x), one(x)
        return (select(x < 0, low, select(x > 0, high, (low + high) / 2)), off_jump(x), off_jump(x))
    end
    ε = eltype(x)(a.ε)
    f, d, s = derivatives(a.f, x / ε)
    return (f, d / ε, s / ε^2)
end

"""
    Inside(f)

A step with samples inside: f, but exactly its ends where |x| > 40. It stands for weights that go to infinity while the
pre-activations of some samples stay finite; those of all others must be beyond 40, and no longer matter.
"""
struct Inside{F<:Activation} <: Activation
    f::F
    Inside(f::Activation) = is_sigmoidal(f) ? new{typeof(f)}(f) : throw(ArgumentError("$f does not become a step"))
end
Base.show(io::IO, a::Inside) = print(io, "Inside(", a.f, ")")

# 1 - tanh(x), the logistic function and those of the normal distribution are below eps²/100 there.
const END_OF_STEP = 40

@inline function derivatives(a::Inside, x)
    f, d, s = derivatives(a.f, x)
    far, crossing = abs(x) > END_OF_STEP, off_jump(abs(x) - END_OF_STEP)
    out = select(x < 0, floor_of(a.f) * one(x), one(x))
    return (select(far, out, f), select(far, zero(x), d) + crossing, select(far, zero(x), s) + crossing)
end

"Whether a unit is a step, and moves over no sample by its derivatives."
is_step(::Activation) = false
is_step(a::Sharp) = a.ε == 0 && is_sigmoidal(a.f)
is_step(::Inside) = true
