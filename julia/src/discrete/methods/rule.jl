"""
    UpdateRule(f; state = (), learning_rate = 0.01, schedule = nothing)

A rule of the user's own, for one parameter: `f(x, g, s, k) -> (d, s)` takes the parameter, its component of the
gradient, the tuple `s` of the numbers that the rule remembers of it (`state` before the first step) and the number k
= 0, 1, … of the step; it returns the decrease in units of the learning rate, and what to remember: θ ← θ − η d. Time
t = Σ η.
"""
struct UpdateRule <: DiscreteMethod
    f::Any
    state::Tuple{Vararg{Float64}}
    learning_rate::Float64
    schedule::Any
end
UpdateRule(f; state=(), learning_rate=0.01, schedule=nothing) =
    UpdateRule(f, Float64.(Tuple(state)), check_rate(learning_rate), as_schedule(schedule))

struct RuleState{F,S<:Tuple}
    f::F
    memory::Vector{S}
end

make_state(m::UpdateRule, ::Type{T}, n) where {T} = RuleState(m.f, fill(T.(m.state), n))
method_name(::UpdateRule) = "UpdateRule"
remembered(state::RuleState) = Float64[number for numbers in state.memory for number in numbers]
function recall!(state::RuleState{F,S}, numbers) where {F,S}
    k = fieldcount(S)
    for i in eachindex(state.memory)
        state.memory[i] = S(numbers[k*(i-1)+1:k*i])
    end
    return nothing
end

function step!(state::RuleState, x::Vector{T}, g, rates, clock::Clock) where {T}
    η, memory, k = T(clock.rate), state.memory, total(clock)
    @inbounds for i in eachindex(x)
        d, memory[i] = state.f(x[i], g[i], memory[i], k)
        x[i] -= η * rates[i] * T(d)
    end
    clock.t += clock.rate
    return nothing
end
