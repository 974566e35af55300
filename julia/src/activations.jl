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
"""
@inline derivatives(::Identity, x) = (x, one(x), zero(x))

@inline derivatives(::Relu, x) = (ifelse(x < 0, zero(x), x), ifelse(x > 0, one(x), zero(x)), zero(x))

@inline function derivatives(::Softplus, x)
    e = fast_exp(-abs(x))
    l, v = log1p_inv1p(e)
    d = e * v                                        # sigmoid(-|x|), without cancellation
    return (ifelse(x < 0, zero(x), x) + l, ifelse(x < 0, d, v), d * v)
end

@inline function derivatives(::Sigmoid, x)
    e = fast_exp(-abs(x))
    v = 1 / (1 + e)
    d = e * v
    s = d * v
    return (ifelse(x < 0, d, v), s, ifelse(x < 0, s, -s) * ((1 - e) * v))
end

@inline function derivatives(::Tanh, x)
    y = abs(x)
    e, m = exp_expm1(-2y)
    v = 1 / (1 + e)
    f = -m * v
    d = 4 * e * v * v                                # 1 - tanh², without cancellation
    f = ifelse(x < 0, -f, f)
    return (f, d, -2 * f * d)
end

@inline function derivatives(::Sigmoid2, x)
    T = typeof(x)
    d = sqrt(2 / T(pi)) * fast_exp(-x * x / 2)
    return (fast_erf(x * sqrt(T(0.5))), d, -x * d)
end

@inline function derivatives(::NormalCdf, x)
    f, d = normal_cdf_pdf(x)
    return (f, d, -x * d)
end

@inline function derivatives(::Gelu, x)
    c, d = normal_cdf_pdf(x)
    y = ifelse(abs(x) > 40, oftype(x, 40), x)        # where d is zero, x² may overflow
    return (x * c, muladd(x, d, c), d * (2 - y * y))
end

@inline function derivatives(::Silu, x)
    f, d, s = derivatives(sigmoid, x)
    return (x * f, muladd(x, d, f), muladd(x, s, 2d))
end

# Klambauer et al., arXiv 1706.02515, equation 2 and the constants of its section 1.
@inline function derivatives(::Selu, x)
    T = typeof(x)
    λ, α = T(1.0507009873554804934193349852946), T(1.6732632423543772848170429916717)
    e, m = exp_expm1(ifelse(x > 0, zero(x), x))
    below = x <= 0
    return (λ * ifelse(below, α * m, x), λ * ifelse(below, α * e, one(x)), λ * ifelse(below, α * e, zero(x)))
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
    return (f, d, 2s)
end

# The logits: outputs become probabilities only in the loss and in `predict`.
@inline derivatives(::Softmax, x) = (x, one(x), zero(x))

@inline function derivatives(::GFunction, x)
    f1, d1, s1 = derivatives(softplus, x)
    f2, d2, s2 = derivatives(sigmoid, 4x)
    return (f1 + f2, d1 + 4d2, s1 + 16s2)
end

"""
    Custom(f)

A user's scalar function; its derivatives by [`Jet`](@ref) arithmetic.
"""
struct Custom{F} <: Activation
    f::F
end
Base.show(io::IO, a::Custom) = print(io, a.f)

@inline function derivatives(a::Custom, x)
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
    activate!(a, A, n, columns)
    activate!(a, A, D, n, columns)
    activate!(a, A, D, S, n, columns)

Replace the pre-activations in `columns` of `A` (first `n` rows) by f; fill `D` with f', `S` with f''.
"""
function activate!(a::Activation, A, n::Int, columns::Columns)
    @inbounds for j in columns.first:columns.last
        @lanes r n begin
            f, _, _ = derivatives(a, A[r, j])
            A[r, j] = f
        end
    end
end
function activate!(a::Activation, A, D, n::Int, columns::Columns)
    @inbounds for j in columns.first:columns.last
        @lanes r n begin
            f, d, _ = derivatives(a, A[r, j])
            A[r, j] = f
            D[r, j] = d
        end
    end
end
function activate!(a::Activation, A, D, S, n::Int, columns::Columns)
    @inbounds for j in columns.first:columns.last
        @lanes r n begin
            f, d, s = derivatives(a, A[r, j])
            A[r, j] = f
            D[r, j] = d
            S[r, j] = s
        end
    end
end
