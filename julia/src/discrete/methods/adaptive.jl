# Steps in units of a running mean of the gradient's size. No flow is followed, not even for small steps: t = Σ η is the
# distance that a parameter would travel whose gradient never changed its sign.

"""
    RMSprop(; learning_rate = 0.01, alpha = 0.99, eps = 1e-8, schedule = nothing)

v ← α v + (1 − α) (∇L)², θ ← θ − η ∇L/(√v + ε) (Tieleman and Hinton 2012). Time t = Σ η, which is no flow's time.
"""
struct RMSprop <: DiscreteMethod
    learning_rate::Float64
    alpha::Float64
    eps::Float64
    schedule::Any
end
RMSprop(; learning_rate=0.01, alpha=0.99, eps=1e-8, schedule=nothing) = RMSprop(
    check_rate(learning_rate), check_fraction("alpha", alpha), check_positive("eps", eps), as_schedule(schedule))

"""
    Adam(; learning_rate = 1e-3, betas = (0.9, 0.999), eps = 1e-8, schedule = nothing)

m ← β₁ m + (1 − β₁) ∇L, v ← β₂ v + (1 − β₂) (∇L)², θ ← θ − η m̂/(√v̂ + ε), with m̂ and v̂ freed from their start at zero
(Kingma and Ba, arXiv 1412.6980). Time t = Σ η, which is no flow's time.
"""
struct Adam <: DiscreteMethod
    learning_rate::Float64
    betas::NTuple{2,Float64}
    eps::Float64
    schedule::Any
end
Adam(; learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8, schedule=nothing) =
    Adam(check_rate(learning_rate), check_betas(betas), check_positive("eps", eps), as_schedule(schedule))

"""
    AdamW(; learning_rate = 1e-3, betas = (0.9, 0.999), eps = 1e-8, weight_decay = 0.01, schedule = nothing)

[`Adam`](@ref) after θ ← (1 − ηλ) θ with λ = `weight_decay` (Loshchilov and Hutter, arXiv 1711.05101). The decay is not
part of the loss that is reported.
"""
struct AdamW <: DiscreteMethod
    learning_rate::Float64
    betas::NTuple{2,Float64}
    eps::Float64
    weight_decay::Float64
    schedule::Any
end
function AdamW(; learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, schedule=nothing)
    0 <= weight_decay < Inf || throw(ArgumentError("weight_decay is $weight_decay; finite and not negative is needed"))
    return AdamW(check_rate(learning_rate), check_betas(betas), check_positive("eps", eps), weight_decay,
                 as_schedule(schedule))
end

function check_betas(betas)
    length(betas) == 2 || throw(ArgumentError("betas is $betas; two numbers are needed"))
    return (check_fraction("betas[1]", betas[1]), check_fraction("betas[2]", betas[2]))
end

struct RMSpropState{T<:AbstractFloat}
    v::Vector{T}
    alpha::T
    eps::T
end
mutable struct AdamState{T<:AbstractFloat}
    m::Vector{T}
    v::Vector{T}
    betas::NTuple{2,Float64}
    powers::NTuple{2,Float64}
    eps::T
    decay::Float64
end

make_state(m::RMSprop, ::Type{T}, n) where {T} = RMSpropState{T}(zeros(T, n), m.alpha, m.eps)
make_state(m::Adam, ::Type{T}, n) where {T} = AdamState{T}(zeros(T, n), zeros(T, n), m.betas, (1.0, 1.0), m.eps, 0.0)
make_state(m::AdamW, ::Type{T}, n) where {T} =
    AdamState{T}(zeros(T, n), zeros(T, n), m.betas, (1.0, 1.0), m.eps, m.weight_decay)

remembered(state::RMSpropState) = Float64.(state.v)
recall!(state::RMSpropState, numbers) = (copyto!(state.v, numbers); nothing)
remembered(state::AdamState) = Float64[state.powers...; state.m; state.v]
function recall!(state::AdamState, numbers)
    n = length(state.m)
    state.powers = (numbers[1], numbers[2])
    copyto!(state.m, numbers[3:n+2])
    copyto!(state.v, numbers[n+3:end])
    return nothing
end

method_name(::RMSprop) = "RMSprop"
method_name(::Adam) = "Adam"
method_name(::AdamW) = "AdamW"

function step!(state::RMSpropState{T}, x::Vector{T}, g, rates, clock::Clock) where {T}
    v, α, ε, η = state.v, state.alpha, state.eps, T(clock.rate)
    @inbounds @simd for i in eachindex(x)
        v[i] = α * v[i] + (1 - α) * g[i] * g[i]
        x[i] -= η * rates[i] * g[i] / (sqrt(v[i]) + ε)
    end
    clock.t += clock.rate
    return nothing
end

function step!(state::AdamState{T}, x::Vector{T}, g, rates, clock::Clock) where {T}
    state.powers = state.powers .* state.betas
    η = T(clock.rate / (1 - state.powers[1]))
    scale = T(1 / sqrt(1 - state.powers[2]))
    decay = T(clock.rate * state.decay)
    m, v, ε = state.m, state.v, state.eps
    β1, β2 = T(state.betas[1]), T(state.betas[2])
    @inbounds @simd for i in eachindex(x)
        m[i] = β1 * m[i] + (1 - β1) * g[i]
        v[i] = β2 * v[i] + (1 - β2) * g[i] * g[i]
        x[i] -= rates[i] * (decay * x[i] + η * m[i] / (sqrt(v[i]) * scale + ε))
    end
    clock.t += clock.rate
    return nothing
end

register!(DISCRETE_METHODS, "RMSprop", RMSprop,
          "steps in units of the gradient's running size (Tieleman and Hinton 2012)")
register!(DISCRETE_METHODS, "Adam", Adam, "the same with a running mean of the gradient (Kingma and Ba 2015)")
register!(DISCRETE_METHODS, "AdamW", AdamW, "Adam with decoupled weight decay (Loshchilov and Hutter 2019)")
