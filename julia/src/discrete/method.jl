"""
    DiscreteMethod

What a user chooses to descend by steps instead of following the flow: [`GradientDescent`](@ref), [`Momentum`](@ref),
[`Nesterov`](@ref), [`RMSprop`](@ref), [`Adam`](@ref), [`AdamW`](@ref), or a rule of one's own by
[`UpdateRule`](@ref). A method has fields `learning_rate` and
`schedule` and implements

- `make_state(method, T, n)`: what it remembers from step to step ([`make_state`](@ref));
- `step!(state, x, g, rates, clock)`: move `x` by one step of rate `clock.rate` along the gradient `g`, each
  parameter's update multiplied by its entry of `rates` (the inverse time constants), and advance `clock.t`;
- `method_name(method)`;
- `remembered(state)`, what `state` remembers, as numbers, and `recall!(state, numbers)`, which takes them back.
"""
abstract type DiscreteMethod <: FlowMethod end

"The discrete methods by name; the values are their types."
const DISCRETE_METHODS = Registry("alg")

"""
    Clock

`step` steps have been made, until time `t`; the next one has the learning rate `rate`. `before` steps were made by an
earlier run, which this one continues: schedules and rules count them too.
"""
mutable struct Clock
    step::Int
    t::Float64
    base::Float64
    rate::Float64
    before::Int
end
Clock(rate::Float64) = Clock(0, 0.0, rate, rate, 0)
Clock(method::DiscreteMethod) = Clock(method.learning_rate)
total(clock::Clock) = clock.before + clock.step

# ---- schedules: factors on the learning rate, for steps that are counted from 0 --------------------------------

"""
    ExponentialDecay(rate)

A schedule: the learning rate is multiplied by `rate`^k at step k (counted from 0).
"""
struct ExponentialDecay
    rate::Float64
    function ExponentialDecay(rate::Real)
        0 < rate <= 1 || throw(ArgumentError("the rate of an exponential decay is $rate; 0 < rate <= 1 is needed"))
        return new(rate)
    end
end
(s::ExponentialDecay)(k) = s.rate^k

"""
    CosineDecay(steps; final = 0)

A schedule: from 1 to `final` along half a cosine in `steps` steps, `final` from then on (Loshchilov and Hutter,
arXiv 1608.03983, without restarts).
"""
struct CosineDecay
    steps::Int
    final::Float64
    function CosineDecay(steps::Integer; final::Real=0)
        steps >= 1 || throw(ArgumentError("a cosine decay takes $steps steps; at least 1 is needed"))
        0 <= final <= 1 || throw(ArgumentError("a cosine decay ends at $final; 0 <= final <= 1 is needed"))
        return new(steps, final)
    end
end
(s::CosineDecay)(k) = s.final + (1 - s.final) * (1 + cospi(min(k, s.steps) / s.steps)) / 2

"A factor for each step; the last one stays."
struct RateTable
    factors::Vector{Float64}
    function RateTable(factors)
        isempty(factors) && throw(ArgumentError("the schedule is empty"))
        all(f -> 0 <= f < Inf, factors) ||
            throw(ArgumentError("the schedule holds factors that are negative or not finite"))
        return new(factors)
    end
end
(s::RateTable)(k) = s.factors[min(k + 1, length(s.factors))]

as_schedule(::Nothing) = nothing
as_schedule(factors::AbstractVector{<:Real}) = RateTable(factors)
function as_schedule(f)
    applicable(f, 0) ||
        throw(ArgumentError("schedule is a $(typeof(f)); nothing, a vector of factors or a function of " *
                                            "the step's number is needed"))
    return f
end

# Methods of their own, reached by one dynamic call, so that no number is boxed.
@noinline set_rate!(clock::Clock, ::Nothing) = nothing
@noinline function set_rate!(clock::Clock, schedule)
    factor = Float64(schedule(total(clock)))
    0 <= factor < Inf ||
        throw(ArgumentError("the schedule gives $factor at step $(total(clock)); a finite number that is " *
                                             "not negative is needed"))
    clock.rate = clock.base * factor
    return nothing
end

function check_rate(learning_rate)
    0 < learning_rate < Inf ||
        throw(ArgumentError("learning_rate is $learning_rate; a positive finite number is needed"))
    return Float64(learning_rate)
end
function check_fraction(name, value)
    0 <= value < 1 || throw(ArgumentError("$name is $value; 0 <= $name < 1 is needed"))
    return Float64(value)
end
function check_positive(name, value)
    0 < value < Inf || throw(ArgumentError("$name is $value; a positive finite number is needed"))
    return Float64(value)
end
