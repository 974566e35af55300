# Variable projection with geodesic acceleration on a QR decomposition: for perfect fits of more parameters than are
# needed.

"""
    VariableProjection()

Levenberg and Marquardt's method for nets with a linear output layer and the loss "mse" without regularisers. The
output weights are not damped and take their best values for the hidden weights after each step (Golub & Pereyra, SIAM
J. Numer. Anal. 10 (1973) 413). The step is corrected by the second derivative of the residuals along it (geodesic
acceleration: Transtrum & Sethna, arXiv 1201.5885), which also decides on the damping: too long a step is seen before
the loss is asked. Steps come from the QR decomposition of the Jacobian, since where a fit is perfect and has more
parameters than it needs the singular values of the Jacobian fall below the square root of the rounding error, where
its normal equations know nothing any more.

Memory: N×P numbers for each output, beside two P×P matrices.
"""
struct VariableProjection <: MinimizeMethod end
method_name(::VariableProjection) = "VariableProjection"

Base.@kwdef mutable struct ProjectionState{T<:AbstractFloat}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    trial::Vector{T} = zero(x)
    trial_gradient::Vector{T} = zero(x)
    jacobian::TallQR{T}                 # a block of rows for each block of samples and output
    rotated::Vector{T} = zero(x)        # Qᵀρ
    damped::TallQR{T}                   # R with the damping's rows below
    step::Vector{T} = zero(x)
    bend::Vector{T} = zero(x)           # half the second derivative of the path
    output::TallQR{T}                   # of the output layer's inputs, one block and one for the damping
    moments::Matrix{T}
    residual::Vector{T}
    zeros::Vector{T}
    root::Vector{T}
    damping::T = FIRST_DAMPING
    modelled::Bool = false
    rejections::Int = 0
    stalled::Int = 0
end

"Numbers in the Jacobian; more than these are not kept."
const JACOBIAN_NUMBERS = 25_000_000
jacobian_fits(net::Net) = net.n_samples * n_outputs(net) <= div(JACOBIAN_NUMBERS, net.n_params)

function make_state(::VariableProjection, objective::Objective{T}, x0::Vector{T}) where {T}
    net, P = objective.net, length(x0)
    residuals_known(net) ||
        throw(ArgumentError("VariableProjection needs an ordinary net with a linear output layer, the loss \"mse\" " *
                            "and neither regulariser nor constraint: choose another optim_solver."))
    jacobian_fits(net) ||
        throw(ArgumentError("VariableProjection keeps the Jacobian, $(net.n_samples * n_outputs(net)) × " *
                            "$(net.n_params) numbers, and takes at most $JACOBIAN_NUMBERS: choose another " *
                            "optim_solver."))
    rows, O, l = [b.n for b in net.blocks for _ in 1:n_outputs(net)], n_outputs(net), last(net.layers)
    q, n = l.fan_in + l.bias, maximum(rows)
    return ProjectionState{T}(; first_point(objective, x0)..., jacobian=TallQR{T}(P, rows), damped=TallQR{T}(P, (P,)),
                              output=TallQR{T}(q, (n, q)), moments=zeros(T, q, O), residual=zeros(T, n),
                              zeros=zeros(T, max(P, n)), root=zeros(T, n))
end

const FIRST_DAMPING = 1e-3
const DAMPING_UP = 2.0
const DAMPING_DOWN = 0.2
const LARGEST_BEND = 0.75           # of second to first derivative, as Transtrum & Sethna advise
const PROJECTION_REJECTIONS = 40
const PROJECTION_STALLED = 30       # the damping falls by DAMPING_DOWN meanwhile, from whatever it was
const STALLING = 0.01               # a smaller part of the loss is no progress where the next step should halve it

function step!(state::ProjectionState{T}, objective::Objective{T}, ::VariableProjection) where {T}
    state.modelled || model!(state, objective) || return Stop.diverged
    trial_loss = T(NaN)
    if damped_step!(state, objective)
        for i in eachindex(state.trial)
            state.trial[i] = state.x[i] + state.step[i] + state.bend[i]
        end
        if solve_outputs!(state, objective, state.trial)
            trial_loss = evaluate!(state.trial_gradient, objective, state.trial)
        end
    end
    trial_gnorm = supnorm(state.trial_gradient)
    if !lower(trial_loss, trial_gnorm, state.loss)
        state.damping *= T(DAMPING_UP)
        state.rejections += 1
        return state.rejections >= PROJECTION_REJECTIONS ? Stop.roundoff : Stop.running
    end
    state.damping *= T(DAMPING_DOWN)
    state.stalled = state.loss - trial_loss < T(STALLING) * state.loss ? state.stalled + 1 : 0
    state.rejections = 0
    accepted!(state, state, trial_loss, trial_gnorm)
    state.modelled = false
    return state.stalled >= PROJECTION_STALLED ? Stop.roundoff : Stop.running
end

"QR decomposition of the Jacobian at `x`, and Qᵀρ; false where numbers are not finite."
function model!(state::ProjectionState{T}, objective::Objective{T}) where {T}
    net, q, ws = objective.net, state.jacobian, objective.net.crew.workers[1].workspace
    objective.nhev += 1
    fill!(q.R, 0)
    fill!(state.rotated, 0)
    b = 0
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(ws, net, state.x, block, 1)
        residual_weights!(state.root, net, block)
        for o in 1:n_outputs(net)
            b += 1
            residual_jacobian!(q.blocks[b], ws, net, state.x, block, state.root, o)
            take_in!(q, b)
            reflect!(state.rotated, residual!(state.residual, ws, block, state.root, o), q, b)
        end
    end
    return state.modelled = all_finite(q.R)
end

"The step and its bend for the present damping; false where the path bends too much for it."
function damped_step!(state::ProjectionState{T}, objective::Objective{T}) where {T}
    net, q, hidden = objective.net, state.damped, last(objective.net.layers).offset
    copyto!(q.R, state.jacobian.R)
    rows = q.blocks[1]
    fill!(rows, 0)
    least = max(10 * eps(T) * largest_pivot(state.jacobian), output_damping(state, hidden))
    for i in 1:size(rows, 1)
        rows[i, i] = i <= hidden ? max(sqrt(state.damping), least) : least
    end
    take_in!(q, 1)
    solve_damped!(state.step, state, state.rotated, -one(T))
    second_residuals!(state.bend, state, objective)
    solve_damped!(state.bend, state, state.bend, -one(T) / 2)
    bend, length = zero(T), zero(T)
    for i in 1:hidden
        bend += abs2(state.bend[i])
        length += abs2(state.step[i])
    end
    return 2 * sqrt(bend) <= T(LARGEST_BEND) * sqrt(length)
end

const OUTPUT_GROWTH = 0.3

"""
Square root of the damping of the output weights: with residuals ρ no step is longer than ‖ρ‖ over twice this root, so
that no weight grows by more than `OUTPUT_GROWTH` of the largest one. It vanishes with the residuals. Without it pairs
of weights grow along directions that the data hardly see, until their cancellation takes the digits that are to be
gained.
"""
function output_damping(state::ProjectionState{T}, hidden::Int) where {T}
    largest = one(T)
    for i in hidden+1:length(state.x)
        largest = max(largest, abs(state.x[i]))
    end
    return sqrt(2 * state.loss) / (2 * T(OUTPUT_GROWTH) * largest)
end

"`s ← factor · R̃⁻¹ Q̃ᵀ [z; 0]`"
function solve_damped!(s::Vector{T}, state::ProjectionState{T}, z::Vector{T}, factor::T) where {T}
    for i in eachindex(s)
        s[i] = factor * z[i]
    end
    reflect!(s, fill!(state.zeros, 0), state.damped, 1)
    return back_substitute!(s, state.damped)
end

"`z ← Qᵀ d²ρ(x + t step)/dt²`"
function second_residuals!(z::Vector{T}, state::ProjectionState{T}, objective::Objective{T}) where {T}
    net, ws, e = objective.net, objective.net.crew.workers[1].workspace, state.residual
    objective.nfev += 1
    fill!(z, 0)
    b = 0
    for block in net.blocks
        heartbeat(net.monitor)
        second = second_derivative!(ws, net, state.x, state.step, block)
        residual_weights!(state.root, net, block)
        for o in 1:n_outputs(net)
            b += 1
            @inbounds @simd for r in 1:block.n
                e[r] = state.root[r] * second[r, o]
            end
            reflect!(z, e, state.jacobian, b)
        end
    end
    return z
end

"The best output weights for the hidden weights in `θ`, by linear least squares; false where numbers are not finite."
function solve_outputs!(state::ProjectionState{T}, objective::Objective{T}, θ::Vector{T}) where {T}
    net, q, M, e = objective.net, state.output, state.moments, state.residual
    ws, l = net.crew.workers[1].workspace, last(net.layers)
    objective.nfev += 1
    fill!(q.R, 0)
    fill!(M, 0)
    Z, k = q.blocks[1], l.fan_in
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(ws, net, θ, block, 0)
        residual_weights!(state.root, net, block)
        A, n = layer_input(ws, block, length(net.layers)), block.n
        n == size(Z, 1) || fill!(Z, 0)
        @inbounds for j in 1:size(Z, 2), r in 1:n
            Z[r, j] = net.output_factor * state.root[r] * A[r, j]
        end
        take_in!(q, 1)
        for o in 1:l.width
            n == length(e) || fill!(e, 0)
            reflect!(view(M, :, o), residual!(e, ws, block, state.root, o), q, 1)
        end
    end
    all_finite(q.R) || return false
    # Units that are copies of each other leave R singular.
    least, rows = max(eps(T) * largest_pivot(q), output_damping(state, l.offset)), q.blocks[2]
    fill!(rows, 0)
    for j in 1:size(rows, 1)
        rows[j, j] = least
    end
    take_in!(q, 2)
    for o in 1:l.width
        z = view(M, :, o)
        back_substitute!(reflect!(z, fill!(state.zeros, 0), q, 2), q)
        for j in 1:k
            θ[l.offset+(o-1)*k+j] -= z[j]
        end
        l.bias && (θ[bias_offset(l)+o] -= z[k+1])
    end
    return true
end

register!(MINIMIZE_METHODS, "VariableProjection", VariableProjection(),
          "the Gauss–Newton method with the best output weights at each step, for perfect fits"; matrices=2,
          when="losses near zero with more parameters than needed: a linear output layer, mse, no regulariser; keeps " *
               "the Jacobian, too, of at most $(div(JACOBIAN_NUMBERS, 10^6)) million numbers")
