# What kind of point a constrained net is at: reasons in the parameters, as far as the constraint lets them move.

"The direction in coordinates that moves the parameters along `e`, or nothing where the constraint does not allow that."
function coordinate_direction(r::ConstrainedNet, e::Vector)
    C = Constraint{Float64}(r.constraint)
    v = Vector{Float64}(e)
    d = solve_coordinates(C, v)
    return norm(image(C, d) - v) <= 1e-6 * norm(v) ? d : nothing
end

"Those of the `reasons` that coordinates can move along."
function reachable(r::ConstrainedNet, reasons::Vector{Invariance})
    found = Invariance[]
    for reason in reasons
        directions = filter(!isnothing, [coordinate_direction(r, e) for e in reason.directions])
        isempty(directions) || push!(found, Invariance(reason.label, reason.layer, reason.units, directions))
    end
    return found
end

invariances(r::ConstrainedNet, z) = reachable(r, invariances(r.net, copy(embed!(r, z))))

function roads_to_infinity(r::ConstrainedNet, z, N::Matrix{Float64})
    null = Matrix(qr(Matrix(Constraint{Float64}(r.constraint)) * N).Q)
    return reachable(r, roads_to_infinity(r.net, copy(embed!(r, z)), null))
end

layers_in(net::Net) = net.layers
layers_in(net::InfiniteNet) = net.student.layers
layers_in(r::ConstrainedNet) = layers_in(r.net)

accuracy(r::ConstrainedNet) = accuracy(r.net)
loss_scale(r::ConstrainedNet, z) = loss_scale(r.net, copy(embed!(r, z)))
interpolated_equations(r::ConstrainedNet, z) = interpolated_equations(r.net, copy(embed!(r, z)))
length_of_layers(r::ConstrainedNet) = length_of_layers(r.net)
unregularised(r::ConstrainedNet) = unregularised(r.net)

function separates(r::ConstrainedNet, z)
    θ = copy(embed!(r, z))
    return separates(r.net, θ) && coordinate_direction(r, output_direction(r.net, θ)) !== nothing
end
function output_direction(r::ConstrainedNet{T}, z) where {T}
    d = coordinate_direction(r, output_direction(r.net, copy(embed!(r, z))))
    return Vector{T}(d / norm(d))
end

"A classification of the coordinates with its direction in the parameters."
function lifted(c::Classification{T}, C::Constraint{T}) where {T}
    direction = isempty(c.direction) ? c.direction : normalize(image(C, c.direction))
    return Classification{T}(c.kind, c.index, c.nullity, c.loss, c.gnorm, c.eigenvalues, c.tolerance,
                             c.gradient_tolerance, c.displacement, c.displacement_tolerance, c.explanations,
                             c.unexplained, direction)
end

with_number_type(::Type{S}, r::ConstrainedNet) where {S<:AbstractFloat} =
    ConstrainedNet(with_number_type(S, r.net), Constraint{S}(r.constraint))

lifted(r::Polished, C::Constraint) =
    Polished(embed(Constraint{BigFloat}(C), r.x), r.loss, r.gnorm, r.iterations, r.converged, r.stopped_by,
                 r.total_time)
