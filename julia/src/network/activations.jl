"""
    Activation

A scalar function with exact first and second derivatives. A new one is a block of this file, or a file of its own: a
type, its registration with name and formula, and the method `derivatives(::Activation, x) -> (f(x), f'(x), f''(x))`.
"""
abstract type Activation end

"Activations by name, as users write them; their summaries are formulas."
const ACTIVATIONS = Registry("activation")

(a::Activation)(x::Real) = first(derivatives(a, float(x)))

"""
    derivatives(a::Activation, x) -> (f(x), f'(x), f''(x))

Branch-free in Float32 and Float64; what a caller does not use, the compiler removes.
At its kink relu has derivative 0, as in PyTorch and JAX.

    derivatives(a::Activation, x, exponentials(a, x))

The same in two stages, for activations that need an exponential. Each stage is short enough for a processor to work on
several vectors at once; as one chain of dependent operations softplus took twice the time (2.6 against 1.3 ns).
"""
@inline derivatives(a::Activation, x) = derivatives(a, x, exponentials(a, x))
@inline derivatives(a::Activation, x, ::Tuple{}) = derivatives(a, x)

"One or two numbers for the second stage of `derivatives`, none where one stage does."
@inline exponentials(::Activation, x) = ()

"f'' of a straight line with a kink at zero: zero, where numbers are; a range of them may reach across the kink."
@inline bend(x) = zero(x)
"Slope of a step at zero: zero, where numbers are, but for the jump itself; a range of them may reach across."
@inline off_jump(x) = zero(x)

# ---- one block each ---------------------------------------------------------------------------------------------

struct Identity <: Activation end
const identity_ = register!(ACTIVATIONS, "identity", Identity(), "x")
@inline derivatives(::Identity, x) = (x, one(x), zero(x))

struct Relu <: Activation end
const relu = register!(ACTIVATIONS, "relu", Relu(), "max(x, 0)")
@inline derivatives(::Relu, x) = (select(x < 0, zero(x), x), select(x > 0, one(x), zero(x)), bend(x))

struct Softplus <: Activation end
const softplus = register!(ACTIVATIONS, "softplus", Softplus(), "log(1 + exp(x))")
@inline exponentials(::Softplus, x) = (fast_exp(-abs(x)),)
@inline function derivatives(::Softplus, x, (e,)::Tuple{Any})
    l, v = log1p_inv1p(e)
    d = e * v                                        # sigmoid(-|x|), without cancellation
    return (select(x < 0, zero(x), x) + l, select(x < 0, d, v), d * v)
end

struct Sigmoid <: Activation end
const sigmoid = register!(ACTIVATIONS, "sigmoid", Sigmoid(), "1/(1 + exp(-x))")
@inline exponentials(::Sigmoid, x) = (fast_exp(-abs(x)),)
@inline function derivatives(::Sigmoid, x, (e,)::Tuple{Any})
    v = 1 / (1 + e)
    d = e * v
    s = d * v
    return (select(x < 0, d, v), s, select(x < 0, s, -s) * ((1 - e) * v))
end

struct Tanh <: Activation end
const tanh_ = register!(ACTIVATIONS, "tanh", Tanh(), "tanh(x)")
@inline exponentials(::Tanh, x) = exp_expm1(-2 * abs(x))
@inline function derivatives(::Tanh, x, (e, m)::Tuple{Any,Any})
    v = 1 / (1 + e)
    f = -m * v
    d = 4 * e * v * v                                # 1 - tanh², without cancellation
    f = select(x < 0, -f, f)
    return (f, d, -2 * f * d)
end

struct Sigmoid2 <: Activation end
const sigmoid2 = register!(ACTIVATIONS, "sigmoid2", Sigmoid2(), "erf(x/sqrt(2))")
@inline exponentials(::Sigmoid2, x) = (fast_exp(-x * x / 2),)
@inline function derivatives(::Sigmoid2, x, (gauss,)::Tuple{Any})
    T = eltype(x)
    d = sqrt(2 / T(pi)) * gauss
    return (fast_erf(x * sqrt(T(0.5)), gauss), d, -x * d)
end

struct NormalCdf <: Activation end
const normal_cdf = register!(ACTIVATIONS, "normal_cdf", NormalCdf(), "(1 + erf(x/sqrt(2)))/2")
@inline exponentials(::NormalCdf, x) = (half_gauss(x),)
@inline function derivatives(::NormalCdf, x, (gauss,)::Tuple{Any})
    f, d = normal_cdf_pdf(x, gauss)
    return (f, d, -x * d)
end

struct Gelu <: Activation end
const gelu = register!(ACTIVATIONS, "gelu", Gelu(), "x normal_cdf(x)")
@inline exponentials(::Gelu, x) = (half_gauss(x),)
@inline function derivatives(::Gelu, x, (gauss,)::Tuple{Any})
    c, d = normal_cdf_pdf(x, gauss)
    y = before_overflow(x)
    return (x * c, muladd(x, d, c), d * (2 - y * y))
end

"`x`, or 40 where it is so large that the density is zero and x² may overflow; numbers of a wider range need neither."
@inline before_overflow(x::Numbers{<:BlasReal}) = select(abs(x) > 40, oftype(x, 40), x)
@inline before_overflow(x) = x

struct Silu <: Activation end
const silu = register!(ACTIVATIONS, "silu", Silu(), "x sigmoid(x)")
@inline exponentials(::Silu, x) = (fast_exp(-abs(x)),)
@inline function derivatives(::Silu, x, e::Tuple{Any})
    f, d, s = derivatives(sigmoid, x, e)
    return (x * f, muladd(x, d, f), muladd(x, s, 2 * d))
end

# Klambauer et al., arXiv 1706.02515, equation 2 and the constants of its section 1.
struct Selu <: Activation end
const selu = register!(ACTIVATIONS, "selu", Selu(), "1.0507 x for x > 0, else 1.7581 (exp(x) - 1)")
@inline exponentials(::Selu, x) = exp_expm1(select(x > 0, zero(x), x))
@inline function derivatives(::Selu, x, (e, m)::Tuple{Any,Any})
    T = eltype(x)
    λ, α = T(1.0507009873554804934193349852946), T(1.6732632423543772848170429916717)
    below = x <= 0
    return (λ * select(below, α * m, x), λ * select(below, α * e, one(x)), λ * select(below, α * e, bend(x)))
end

struct Square <: Activation end
const square = register!(ACTIVATIONS, "square", Square(), "x^2/2")
@inline derivatives(::Square, x) = (x * x / 2, x, one(x))

struct Cube <: Activation end
const cube = register!(ACTIVATIONS, "cube", Cube(), "x^3")
@inline derivatives(::Cube, x) = (x * x * x, 3 * x * x, 6 * x)

struct Exp <: Activation end
const exp_ = register!(ACTIVATIONS, "exp", Exp(), "exp(x)")
@inline function derivatives(::Exp, x)
    e = fast_exp(x)
    return (e, e, e)
end

struct GFunction <: Activation end
const g_function = register!(ACTIVATIONS, "g", GFunction(), "sigmoid(4x) + softplus(x)")
@inline exponentials(::GFunction, x) = (fast_exp(-abs(x)), fast_exp(-abs(4 * x)))
@inline function derivatives(::GFunction, x, (e, e4)::Tuple{Any,Any})
    f1, d1, s1 = derivatives(softplus, x, (e,))
    f2, d2, s2 = derivatives(sigmoid, 4 * x, (e4,))
    return (f1 + f2, d1 + 4 * d2, s1 + 16 * s2)
end

"""
    Softmax()

For the output layer of a net with the negative log-likelihood: outputs are exp(hᵢ)/Σⱼ exp(hⱼ).
"""
struct Softmax <: Activation end
const softmax = register!(ACTIVATIONS, "softmax", Softmax(), "exp(x_i)/sum_j exp(x_j), for the output layer")
# The logits: outputs become probabilities only in the loss and in `predict`.
@inline derivatives(::Softmax, x) = (x, one(x), zero(x))

for (name, f) in ACTIVATIONS                                # those of Base, as tanh, have docstrings of theirs
    isdefined(@__MODULE__, Symbol(name)) && getfield(@__MODULE__, Symbol(name)) === f || continue
    @eval @doc $("    $name(x)\n\nThe activation $(ACTIVATIONS.entries[name].summary).") $(Symbol(name))
end

"""
    Poly(c0, c1, …)

The polynomial c0 + c1 x + c2 x² + ….
"""
struct Poly{M} <: Activation
    coefficients::NTuple{M,Float64}
end
Poly(c::Real...) = isempty(c) ? throw(ArgumentError("Poly needs a coefficient")) : Poly(Float64.(c))
@inline function derivatives(p::Poly{M}, x) where {M}
    f = d = s = zero(x)
    for i in M:-1:1                                  # Horner for p, p' and p''/2 at once
        s = muladd(s, x, d)
        d = muladd(d, x, f)
        f = muladd(f, x, oftype(x, p.coefficients[i]))
    end
    return (f, d, 2 * s)
end

"""
    Custom(f)

A user's scalar function; its derivatives by [`Jet`](@ref) arithmetic, or by ForwardDiff's numbers where that is loaded
when the network is made: more functions know them, those of SpecialFunctions among them.
"""
struct Custom{F,D} <: Activation
    f::F
    differentiation::D
end
struct Jets end
const DIFFERENTIATION = Ref{Any}(Jets())
Custom(f) = Custom(f, DIFFERENTIATION[])
Base.show(io::IO, a::Custom) = print(io, a.f)

@inline function derivatives(a::Custom{F,Jets}, x) where {F}
    y = a.f(Jet(x, one(x), zero(x)))
    return y isa Jet ? (y.value, y.first, y.second) : (oftype(x, y), zero(x), zero(x))
end

"""
    Blend(first, second, μ)

The activation (1 − μ) first + μ second; a reference to `μ` is shared by all units of a net.
"""
struct Blend{A<:Activation,B<:Activation} <: Activation
    first::A
    second::B
    μ::Base.RefValue{Float64}
end
@inline function derivatives(a::Blend, x)
    μ = oftype(x, a.μ[])
    f, d, s = derivatives(a.first, x)
    F, D, S = derivatives(a.second, x)
    return (muladd(μ, F - f, f), muladd(μ, D - d, d), muladd(μ, S - s, s))
end
Base.show(io::IO, a::Blend) = print(io, "(", a.first, " to ", a.second, ")")

"""
    activation(f) -> Activation

An `Activation` from itself, its name, or Julia's own `identity` or `tanh`.
"""
activation(f::Activation) = f
activation(::typeof(identity)) = identity_
activation(::typeof(tanh)) = tanh_
activation(::typeof(exp)) = exp_
activation(f::Function) = Custom(f)
function activation(name::Union{Symbol,AbstractString})
    return lookup(ACTIVATIONS, String(name)::String)::Activation
end
activation(f) = throw(ArgumentError("an activation is a name or an Activation, got $(typeof(f))"))

"The names of the activations of which `holds` is true."
names_where(holds) = String[name for (name, f) in ACTIVATIONS if holds(f)]

Base.show(io::IO, a::Activation) = print(io, first(name for (name, b) in ACTIVATIONS if b === a))
Base.show(io::IO, a::Poly) = print(io, "Poly(", join(a.coefficients, ", "), ")")

"""
    Columns(activation, first, last)

Units `first:last` of a layer, which share an activation. Mutable, so that passing it on does not allocate.
"""
mutable struct Columns
    activation::Activation
    first::Int
    last::Int
end

"""
    activate!(a, Val(order), A, D, S, n, j)

Replace the pre-activations in column `j` of `A` (first `n` rows) by f; for `order` 1 fill `D` with f', for `order` 2
also `S` with f''. What `D` and `S` hold otherwise is lost.
"""
@inline function activate!(a::Activation, ::Val{order}, A::Matrix{T}, D::Matrix{T}, S::Matrix{T}, n::Int,
                           j::Int) where {order,T}
    before, most = (j - 1) * size(A, 1), n - n % width(wide(T))
    activate!(a, Val(order), wide(T), A, D, S, before+1:width(wide(T)):before+most)
    most < n && activate!(a, Val(order), lanes(T), A, D, S, before+most+1:width(lanes(T)):before+n)
    return nothing
end
@inline function activate!(a::Activation, ::Val{order}, ::Type{V}, A, D, S, rows) where {order,V}
    GC.@preserve A D S begin
        kept = exponentials(a, zero(V))::Tuple      # of a type that is known for no activation in particular, too
        for i in rows
            length(kept) >= 1 || break
            e = exponentials(a, load(V, A, i))
            store!(D, i, e[1])
            length(kept) >= 2 && store!(S, i, e[2])
        end
        for i in rows
            e = length(kept) == 0 ? () : length(kept) == 1 ? (load(V, D, i),) : (load(V, D, i), load(V, S, i))
            f, d, s = derivatives(a, load(V, A, i), e)
            store!(A, i, f)
            order >= 1 && store!(D, i, d)
            order >= 2 && store!(S, i, s)
        end
    end
    return nothing
end
@inline function activate!(a::Union{Custom,Blend}, ::Val{order}, A::Matrix{T}, D::Matrix{T}, S::Matrix{T}, n::Int,
                           j::Int) where {order,T}
    @inbounds @lanes r n begin
        f, d, s = derivatives(a, A[r, j])
        A[r, j] = f
        order >= 1 && (D[r, j] = d)
        order >= 2 && (S[r, j] = s)
    end
    return nothing
end
