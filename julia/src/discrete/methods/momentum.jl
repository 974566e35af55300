# Steps along the gradient, and along a running sum of gradients. Time: a constant gradient of one moves a parameter
# by -t, as it does in the flow. So t grows by the learning rate with each step of gradient descent, and with momentum μ
# by what the same recursion makes of ones: soon learning_rate/(1 - μ).

"""
    GradientDescent(; learning_rate = 0.01, schedule = nothing)

θ ← θ − η ∇L: Euler's method for the gradient flow. Time t = Σ η: points compare with the flow at the same t.

`schedule`: `nothing`, [`ExponentialDecay`](@ref), [`CosineDecay`](@ref), a vector (its last entry stays) or any
function of the step's number k = 0, 1, …: the factor on `learning_rate`. The same for all methods.
"""
struct GradientDescent <: DiscreteMethod
    learning_rate::Float64
    schedule::Any
end
GradientDescent(; learning_rate=0.01, schedule=nothing) =
    GradientDescent(check_rate(learning_rate), as_schedule(schedule))

"""
    Momentum(; learning_rate = 0.01, momentum = 0.9, schedule = nothing)

v ← μ v + ∇L, θ ← θ − η v (Polyak 1964, in the form of PyTorch's SGD). Time: what the recursion makes of a constant
gradient of one, so that t grows by η at the first step and by η/(1 − μ) in the long run.
"""
struct Momentum <: DiscreteMethod
    learning_rate::Float64
    momentum::Float64
    schedule::Any
end
Momentum(; learning_rate=0.01, momentum=0.9, schedule=nothing) =
    Momentum(check_rate(learning_rate), check_fraction("momentum", momentum), as_schedule(schedule))

"""
    Nesterov(; learning_rate = 0.01, momentum = 0.9, schedule = nothing)

v ← μ v + ∇L, θ ← θ − η (∇L + μ v) (Nesterov 1983, in the form of PyTorch's SGD). Time as for [`Momentum`](@ref).
"""
struct Nesterov <: DiscreteMethod
    learning_rate::Float64
    momentum::Float64
    schedule::Any
end
Nesterov(; learning_rate=0.01, momentum=0.9, schedule=nothing) =
    Nesterov(check_rate(learning_rate), check_fraction("momentum", momentum), as_schedule(schedule))

mutable struct MomentumState{T<:AbstractFloat}
    v::Vector{T}
    ones::Float64       # v for a gradient of one
    μ::Float64
    nesterov::Bool
end
struct DescentState end

make_state(::GradientDescent, ::Type, n) = DescentState()
make_state(m::Momentum, ::Type{T}, n) where {T} = MomentumState{T}(zeros(T, n), 0.0, m.momentum, false)
make_state(m::Nesterov, ::Type{T}, n) where {T} = MomentumState{T}(zeros(T, n), 0.0, m.momentum, true)

remembered(::DescentState) = Float64[]
recall!(::DescentState, numbers) = nothing
remembered(state::MomentumState) = Float64[state.ones; state.v]
recall!(state::MomentumState, numbers) = (state.ones = numbers[1]; copyto!(state.v, numbers[2:end]); nothing)

method_name(::GradientDescent) = "GradientDescent"
method_name(::Momentum) = "Momentum"
method_name(::Nesterov) = "Nesterov"

function step!(::DescentState, x::Vector{T}, g, rates, clock::Clock) where {T}
    η = T(clock.rate)
    @inbounds @simd for i in eachindex(x)
        x[i] -= η * rates[i] * g[i]
    end
    clock.t += clock.rate
    return nothing
end

function step!(state::MomentumState{T}, x::Vector{T}, g, rates, clock::Clock) where {T}
    v, η, μ = state.v, T(clock.rate), T(state.μ)
    # θ moves by η (a ∇L + b v)
    a, b = state.nesterov ? (one(T), μ) : (zero(T), one(T))
    @inbounds @simd for i in eachindex(x)
        v[i] = muladd(μ, v[i], g[i])
        x[i] -= η * rates[i] * muladd(b, v[i], a * g[i])
    end
    state.ones = state.μ * state.ones + 1
    clock.t += clock.rate * (a + b * state.ones)
    return nothing
end

register!(DISCRETE_METHODS, "GradientDescent", GradientDescent, "Euler's method for the flow")
register!(DISCRETE_METHODS, "Momentum", Momentum, "heavy ball (Polyak 1964)")
register!(DISCRETE_METHODS, "Nesterov", Nesterov, "Nesterov's accelerated gradient (1983)")
