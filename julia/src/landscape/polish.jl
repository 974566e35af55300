# More digits than the number type of a net has.

"""
    with_number_type(S, net) -> Net{S}

The same network, loss and data in another number type.
"""
function with_number_type(::Type{S}, net::Net) where {S<:AbstractFloat}
    old = net.regulariser
    regulariser = Regulariser{S}(S(old.l2), S(old.maxnorm), [(i, j, S(λ)) for (i, j, λ) in old.pairs])
    bs = [Block{S}(b.n, S.(b.X), S.(b.Y), S.(b.w)) for b in net.blocks]
    return Net{S}(net.layers, bs, net.n_samples, net.n_params, own_loss(net.objective, S, n_outputs(net)), regulariser,
                  S(net.output_factor), Crew{S}(net.layers, bs, 1), nothing)
end

"""
    Polished

`x` (BigFloat), its `loss` and `gnorm` = ‖∇L‖_∞, `iterations`, whether it `converged` to the digits asked for, why
it ended (`stopped_by`), and `total_time` in seconds.
"""
struct Polished
    x::Vector{BigFloat}
    loss::BigFloat
    gnorm::BigFloat
    iterations::Int
    converged::Bool
    stopped_by::Stop.Reason
    total_time::Float64
end

Base.show(io::IO, r::Polished) = print(io, "Polished(", r.converged ? "" : "not ", "converged: loss = ",
    Float64(r.loss), ", ‖∇L‖_∞ = ", Float64(r.gnorm), ", ", r.iterations, " iterations)")

"""
    polish(net, θ; digits = 50, maxiterations = 200, maxtime = Inf, monitor = Monitor(), constraint = nothing)
        -> Polished

Newton's method from θ to the fixed point near by, of whatever index, to `digits` decimal digits of the parameters.
Gradients are evaluated in BigFloat; steps are solved with the eigenvalues of the Hessian in Float64, and without
its null directions, so that each gains some ten digits (iterative refinement: Higham, Accuracy and Stability of
Numerical Algorithms, 2002, ch. 12) and degenerate points are polished too. Where the Hessian is too ill-conditioned
for that but not indefinite, [`minimize`](@ref) goes on in BigFloat, Hessian included, which is slow. The data are
taken as the exact numbers they are in the net's own type.
"""
function polish(net::Union{Net,ConstrainedNet}, θ::AbstractVector; digits::Real=50, maxiterations::Real=200,
                maxtime::Real=Inf, monitor::Monitor=Monitor(), constraint=nothing)
    length(θ) == n_params(net) ||
        throw(DimensionMismatch("θ has $(length(θ)) entries, the net has $(n_params(net)) parameters"))
    constraint === nothing || return within(net, constraint, θ, monitor) do inner, z
        polish(inner, z; digits=digits, maxiterations=maxiterations, maxtime=maxtime, monitor=monitor)
    end
    2 <= digits <= 10_000 || throw(ArgumentError("digits is $digits; 2 to 10000 are possible"))
    # Losses near a minimum of zero are squares of what gradients are.
    return setprecision(BigFloat, ceil(Int, 2 * digits * log2(10)) + 64) do
        refine(with_number_type(BigFloat, net), with_number_type(Float64, net), BigFloat.(θ), BigFloat(10)^-digits,
               maxiterations, maxtime, monitor)
    end
end

mutable struct Refinement
    x::Vector{BigFloat}
    loss::BigFloat
    gnorm::BigFloat
    iterations::Int
    curved::BigFloat         # length of the last step
    flat::BigFloat           # of a step in null directions, at least: their eigenvalues may be smaller
    index::Int
end

function refine(big::AbstractNet{BigFloat}, coarse::AbstractNet{Float64}, x, ε::BigFloat, maxiterations, maxtime,
                monitor)
    start!(monitor)
    state = Refinement(copy(x), BigFloat(NaN), BigFloat(Inf), 0, Inf, Inf, 0)
    watch!(big, monitor)
    reason = try
        refine!(state, big, coarse, ε, maxiterations, maxtime, monitor)
    catch interruption
        interruption isa Interrupted || rethrow()
        interruption.reason
    finally
        watch!(big, nothing)
    end
    reason == Stop.patience && state.index == 0 || return finished(state, reason, reason == Stop.roundoff, monitor)
    # Not inferred before it is needed: it takes seconds to compile for BigFloat.
    m = Base.invokelatest(minimize, big, state.x; maxiterations=maxiterations - state.iterations, min_gnorm=ε,
                          maxtime=max(0, maxtime - elapsed(monitor)), monitor=Monitor(monitor.report))
    m.gnorm < state.gnorm && (state.x = m.x; state.loss = m.loss; state.gnorm = m.gnorm)
    state.iterations += m.iterations
    return finished(state, m.stopped_by, m.stopped_by in (Stop.min_gnorm, Stop.roundoff), monitor)
end
finished(s::Refinement, reason::Stop.Reason, converged::Bool, monitor::Monitor) =
    Polished(s.x, s.loss, s.gnorm, s.iterations, converged, reason, elapsed(monitor))

function refine!(state::Refinement, big, coarse, ε, maxiterations, maxtime, monitor)
    x, g = copy(state.x), similar(state.x)
    F, τ, fresh = nothing, 0.0, false
    step = zeros(length(x))
    while true
        value = value_and_gradient!(g, big, x)
        gnorm = supnorm(g)
        isfinite(gnorm) || return Stop.diverged
        stuck, slow = !(gnorm <= state.gnorm / 2), !(gnorm <= 1e-6 * state.gnorm)
        if gnorm <= state.gnorm
            state.x, state.loss, state.gnorm = copy(x), value, gnorm
        end
        iszero(gnorm) && return Stop.roundoff
        size = 1 + norm(x)
        if F === nothing || (slow && !fresh)                  # the Hessian of an earlier point no longer serves
            stuck && F !== nothing && (x = copy(state.x); value_and_gradient!(g, big, x); gnorm = supnorm(g))
            θ = Vector{Float64}(x)
            H = hessian(coarse, θ)
            all_finite(H) || return Stop.diverged             # it overflows in Float64
            F, τ, state.index = curvature(coarse, H, θ, g)
            fresh = true
        elseif stuck
            done = state.curved <= ε * size && state.flat <= 1000 * ε * size
            return done ? Stop.roundoff : Stop.patience
        else
            fresh = false
        end
        state.iterations >= maxiterations && return Stop.maxiterations
        elapsed(monitor) >= maxtime && return Stop.maxtime
        reason = poll!(monitor, :minimize, state.iterations, elapsed(monitor), value, gnorm, nothing)
        reason == Stop.running || return reason
        slopes = F.vectors' * scaled(g, gnorm)
        newton_step!(step, F.vectors, F.values, slopes, τ)
        for i in eachindex(x)
            x[i] += gnorm * step[i]
        end
        state.iterations += 1
        state.curved = gnorm * norm(step)
        state.flat = gnorm * flat_part(slopes, F.values, τ)
        if state.curved <= ε * size && state.flat <= ε * size
            value = value_and_gradient!(g, big, x)
            supnorm(g) <= state.gnorm && ((state.x, state.loss, state.gnorm) = (x, value, supnorm(g)))
            return Stop.roundoff
        end
    end
end

"Eigenvalues of the Hessian in Float64, the size up to which they are null, and how many are negative."
function curvature(coarse::AbstractNet{Float64}, H::Matrix{Float64}, θ::Vector{Float64}, g)
    F = eigenpairs(H)
    largest = maximum(abs, F.values)
    floor_λ, _ = noise(coarse, θ, largest)
    slopes = F.vectors' * Vector{Float64}(g)
    τ, _, _ = resolve(coarse, θ, H, F, slopes, floor_λ, eps()^0.4 * (1 + norm(θ)), largest)
    τ <= largest / 100 || (τ = floor_λ)
    return F, τ, count(λ -> λ < -τ, F.values)
end

"g / gnorm in Float64, which may not hold g itself."
scaled(g::Vector{BigFloat}, gnorm::BigFloat) = Float64[Float64(gi / gnorm) for gi in g]

"The gradient in null directions over the largest eigenvalue that these may have."
function flat_part(slopes::Vector{Float64}, λ::Vector{Float64}, τ::Float64)
    s = 0.0
    for k in eachindex(λ)
        abs(λ[k]) > τ || (s += abs2(slopes[k]))
    end
    return sqrt(s) / max(τ, floatmin(Float64))
end
