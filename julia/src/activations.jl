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
struct GFunction <: Activation end

const identity_ = Identity()
const relu = Relu()
const softplus = Softplus()
const sigmoid = Sigmoid()
const tanh_ = Tanh()
const sigmoid2 = Sigmoid2()
const g = GFunction()

"Name to activation, as users write it."
const ACTIVATIONS = Dict{String,Activation}(
    "identity" => identity_, "relu" => relu, "softplus" => softplus, "sigmoid" => sigmoid, "tanh" => tanh_,
    "sigmoid2" => sigmoid2, "g" => g)

"""
    activation(f) -> Activation

An `Activation` from itself, its name, or Julia's own `identity` or `tanh`.
"""
activation(f::Activation) = f
activation(::typeof(identity)) = identity_
activation(::typeof(tanh)) = tanh_
function activation(name::Union{Symbol,AbstractString})
    haskey(ACTIVATIONS, String(name)) && return ACTIVATIONS[String(name)]
    throw(ArgumentError("unknown activation \"$name\"; known are $(join(sort!(collect(keys(ACTIVATIONS))), ", "))"))
end
activation(f) = throw(ArgumentError("an activation is a name or an Activation, got $(typeof(f))"))

Base.show(io::IO, a::Activation) = print(io, first(name for (name, b) in ACTIVATIONS if b === a))

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

@inline function derivatives(::GFunction, x)
    f1, d1, s1 = derivatives(softplus, x)
    f2, d2, s2 = derivatives(sigmoid, 4x)
    return (f1 + f2, d1 + 4d2, s1 + 16s2)
end

"""
    activate!(a, A, n, k)
    activate!(a, A, D, n, k)
    activate!(a, A, D, S, n, k)

Replace the pre-activations in columns `1:k` of `A` (first `n` rows) by f; fill `D` with f', `S` with f''.
"""
function activate!(a::Activation, A, n::Int, k::Int)
    @inbounds for j in 1:k
        @lanes r n begin
            f, _, _ = derivatives(a, A[r, j])
            A[r, j] = f
        end
    end
end
function activate!(a::Activation, A, D, n::Int, k::Int)
    @inbounds for j in 1:k
        @lanes r n begin
            f, d, _ = derivatives(a, A[r, j])
            A[r, j] = f
            D[r, j] = d
        end
    end
end
function activate!(a::Activation, A, D, S, n::Int, k::Int)
    @inbounds for j in 1:k
        @lanes r n begin
            f, d, s = derivatives(a, A[r, j])
            A[r, j] = f
            D[r, j] = d
            S[r, j] = s
        end
    end
end
