"""
    Activation

A scalar function with exact first and second derivatives. A new one needs a type, a name in
`ACTIVATIONS` and the method `derivatives(::Activation, x) -> (f(x), f'(x), f''(x))`.
"""
abstract type Activation end

struct Identity <: Activation end
struct Relu <: Activation end
struct Softplus <: Activation end
struct Sigmoid <: Activation end
struct Tanh <: Activation end
struct Sigmoid2 <: Activation end
struct NormalCdf <: Activation end
struct Gelu <: Activation end
struct Silu <: Activation end
struct Selu <: Activation end
struct Square <: Activation end
struct Cube <: Activation end
struct Exp <: Activation end
struct GFunction <: Activation end

"""
    Softmax()

For the output layer of a net with the negative log-likelihood: outputs are exp(hᵢ)/Σⱼ exp(hⱼ).
"""
struct Softmax <: Activation end

"""
    Poly(c0, c1, …)

The polynomial c0 + c1 x + c2 x² + ….
"""
struct Poly{M} <: Activation
    coefficients::NTuple{M,Float64}
end
Poly(c::Real...) = isempty(c) ? throw(ArgumentError("Poly needs a coefficient")) : Poly(Float64.(c))

const identity_ = Identity()
const relu = Relu()
const softplus = Softplus()
const sigmoid = Sigmoid()
const tanh_ = Tanh()
const sigmoid2 = Sigmoid2()
const normal_cdf = NormalCdf()
const gelu = Gelu()
const silu = Silu()
const selu = Selu()
const square = Square()
const cube = Cube()
const exp_ = Exp()
const g = GFunction()
const softmax = Softmax()

"Name to activation, as users write it."
const ACTIVATIONS = Dict{String,Activation}(
    "identity" => identity_, "relu" => relu, "softplus" => softplus, "sigmoid" => sigmoid, "tanh" => tanh_,
    "sigmoid2" => sigmoid2, "normal_cdf" => normal_cdf, "gelu" => gelu, "silu" => silu, "selu" => selu,
    "square" => square, "cube" => cube, "exp" => exp_, "g" => g, "softmax" => softmax)

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
    haskey(ACTIVATIONS, String(name)) && return ACTIVATIONS[String(name)]
    throw(ArgumentError("unknown activation \"$name\"; known are $(join(sort!(collect(keys(ACTIVATIONS))), ", "))"))
end
activation(f) = throw(ArgumentError("an activation is a name or an Activation, got $(typeof(f))"))

Base.show(io::IO, a::Activation) = print(io, first(name for (name, b) in ACTIVATIONS if b === a))
Base.show(io::IO, a::Poly) = print(io, "Poly(", join(a.coefficients, ", "), ")")

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

@inline derivatives(::Identity, x) = (x, one(x), zero(x))

@inline derivatives(::Relu, x) = (select(x < 0, zero(x), x), select(x > 0, one(x), zero(x)), zero(x))

@inline exponentials(::Union{Softplus,Sigmoid,Silu}, x) = (fast_exp(-abs(x)),)

@inline function derivatives(::Softplus, x, (e,)::Tuple{Any})
    l, v = log1p_inv1p(e)
    d = e * v                                        # sigmoid(-|x|), without cancellation
    return (select(x < 0, zero(x), x) + l, select(x < 0, d, v), d * v)
end

@inline function derivatives(::Sigmoid, x, (e,)::Tuple{Any})
    v = 1 / (1 + e)
    d = e * v
    s = d * v
    return (select(x < 0, d, v), s, select(x < 0, s, -s) * ((1 - e) * v))
end

@inline exponentials(::Tanh, x) = exp_expm1(-2 * abs(x))
@inline function derivatives(::Tanh, x, (e, m)::Tuple{Any,Any})
    v = 1 / (1 + e)
    f = -m * v
    d = 4 * e * v * v                                # 1 - tanh², without cancellation
    f = select(x < 0, -f, f)
    return (f, d, -2 * f * d)
end

@inline exponentials(::Sigmoid2, x) = (fast_exp(-x * x / 2),)
@inline function derivatives(::Sigmoid2, x, (gauss,)::Tuple{Any})
    T = eltype(x)
    d = sqrt(2 / T(pi)) * gauss
    return (fast_erf(x * sqrt(T(0.5)), gauss), d, -x * d)
end

@inline exponentials(::Union{NormalCdf,Gelu}, x) = (half_gauss(x),)
@inline function derivatives(::NormalCdf, x, (gauss,)::Tuple{Any})
    f, d = normal_cdf_pdf(x, gauss)
    return (f, d, -x * d)
end

@inline function derivatives(::Gelu, x, (gauss,)::Tuple{Any})
    c, d = normal_cdf_pdf(x, gauss)
    y = select(abs(x) > 40, oftype(x, 40), x)        # where d is zero, x² may overflow
    return (x * c, muladd(x, d, c), d * (2 - y * y))
end

@inline function derivatives(::Silu, x, e::Tuple{Any})
    f, d, s = derivatives(sigmoid, x, e)
    return (x * f, muladd(x, d, f), muladd(x, s, 2 * d))
end

# Klambauer et al., arXiv 1706.02515, equation 2 and the constants of its section 1.
@inline exponentials(::Selu, x) = exp_expm1(select(x > 0, zero(x), x))
@inline function derivatives(::Selu, x, (e, m)::Tuple{Any,Any})
    T = eltype(x)
    λ, α = T(1.0507009873554804934193349852946), T(1.6732632423543772848170429916717)
    below = x <= 0
    return (λ * select(below, α * m, x), λ * select(below, α * e, one(x)), λ * select(below, α * e, zero(x)))
end

@inline derivatives(::Square, x) = (x * x / 2, x, one(x))
@inline derivatives(::Cube, x) = (x * x * x, 3 * x * x, 6 * x)

@inline function derivatives(::Exp, x)
    e = fast_exp(x)
    return (e, e, e)
end

@inline function derivatives(p::Poly{M}, x) where {M}
    f = d = s = zero(x)
    for i in M:-1:1                                  # Horner for p, p' and p''/2 at once
        s = muladd(s, x, d)
        d = muladd(d, x, f)
        f = muladd(f, x, oftype(x, p.coefficients[i]))
    end
    return (f, d, 2 * s)
end

# The logits: outputs become probabilities only in the loss and in `predict`.
@inline derivatives(::Softmax, x) = (x, one(x), zero(x))

@inline exponentials(::GFunction, x) = (fast_exp(-abs(x)), fast_exp(-abs(4 * x)))
@inline function derivatives(::GFunction, x, (e, e4)::Tuple{Any,Any})
    f1, d1, s1 = derivatives(softplus, x, (e,))
    f2, d2, s2 = derivatives(sigmoid, 4 * x, (e4,))
    return (f1 + f2, d1 + 4 * d2, s1 + 16 * s2)
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

Replace the pre-activations in column `j` of `A` (first `n` rows) by f; for `order` 1 fill `D` with f', for `order` 2 also
`S` with f''. What `D` and `S` hold otherwise is lost.
"""
@inline function activate!(a::Activation, ::Val{order}, A::Matrix{T}, D::Matrix{T}, S::Matrix{T}, n::Int, j::Int) where {order,T}
    V = lanes(T)
    rows = (j-1)*size(A, 1)+1:width(V):(j-1)*size(A, 1)+n
    GC.@preserve A D S begin
        kept = exponentials(a, zero(V))
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
@inline function activate!(a::Custom, ::Val{order}, A::Matrix{T}, D::Matrix{T}, S::Matrix{T}, n::Int, j::Int) where {order,T}
    @inbounds @lanes r n begin
        f, d, s = derivatives(a, A[r, j])
        A[r, j] = f
        order >= 1 && (D[r, j] = d)
        order >= 2 && (S[r, j] = s)
    end
    return nothing
end
